"""The V4 chat encoding (preview profile): messages -> prompt text, and back for tool calls.

`render(messages, thinking)` follows the reference rules: tools block, tool
results merged into user turns, reasoning kept only where the rules keep it.
Messages are dicts in the OpenAI form; `tools` and `response_format` sit on the
system message. Effort prefixes and injection-safe tokenising are not here.
"""
import json
import re

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, REMINDER = "<｜User｜>", "<｜Assistant｜>", "<｜latest_reminder｜>"
THINK, UNTHINK, DSML = "<think>", "</think>", "｜DSML｜"
TASKS = ("action", "query", "authority", "domain", "title", "read_url")
FIRST_TOKENS = (BOS, EOS, PAD)
LAST_TOKENS = (USER, ASSISTANT, THINK, UNTHINK, DSML, REMINDER) + tuple(f"<｜{t}｜>" for t in TASKS)

TOOLS_HEAD = f"""## Tools

You have access to a set of tools to help answer the user's question. You can invoke tools by writing a "<{DSML}tool_calls>" block like the following:

<{DSML}tool_calls>
<{DSML}invoke name="$TOOL_NAME">
<{DSML}parameter name="$PARAMETER_NAME" string="true|false">$PARAMETER_VALUE</{DSML}parameter>
...
</{DSML}invoke>
<{DSML}invoke name="$TOOL_NAME2">
...
</{DSML}invoke>
</{DSML}tool_calls>

String parameters should be specified as is and set `string="true"`. For all other types (numbers, booleans, arrays, objects), pass the value in JSON format and set `string="false"`.

If thinking_mode is enabled (triggered by {THINK}), you MUST output your complete reasoning inside {THINK}...{UNTHINK} BEFORE any tool calls or final response.

Otherwise, output directly after {UNTHINK} with tool calls or final response.

### Available Tool Schemas

"""
TOOLS_TAIL = """
You MUST strictly follow the above defined tool name and parameter schemas to invoke tool calls.
"""
RESPONSE_FORMAT = "\n\n## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n"


def dumps(value):
    return json.dumps(value, ensure_ascii=False)


def tools_block(tools):
    lines = "".join(dumps(t.get("function", t)) + "\n" for t in tools)
    return TOOLS_HEAD + lines + TOOLS_TAIL


def calls_block(calls):
    out = []
    for call in calls:
        f = call.get("function", call)
        args = f["arguments"]
        args = json.loads(args) if isinstance(args, str) else args
        lines = "\n".join(
            f'<{DSML}parameter name="{k}" string="{"true" if isinstance(v, str) else "false"}">'
            f'{v if isinstance(v, str) else dumps(v)}</{DSML}parameter>' for k, v in args.items())
        out.append(f'<{DSML}invoke name="{f["name"]}">\n{lines}\n</{DSML}invoke>')
    return f"<{DSML}tool_calls>\n" + "\n".join(out) + f"\n</{DSML}tool_calls>"


def parse_calls(text):
    """[(name, {key: value})] of the first tool_calls block; None if there is none or it is malformed."""
    block = re.search(rf"<{DSML}tool_calls>\n(.*?)\n</{DSML}tool_calls>", text, re.S)
    if not block:
        return None
    calls, rest = [], block.group(1)
    invoke = re.compile(rf'<{DSML}invoke name="([^"\n]+)">\n(.*?)\n</{DSML}invoke>\n?', re.S)
    param = re.compile(rf'<{DSML}parameter name="([^"\n]+)" string="(true|false)">(.*?)</{DSML}parameter>\n?', re.S)
    while rest:
        m = invoke.match(rest)
        if not m:
            return None
        rest, body, args = rest[m.end():], m.group(2), {}
        while body:
            p = param.match(body)
            if not p:
                return None
            try:
                args[p.group(1)] = p.group(3) if p.group(2) == "true" else json.loads(p.group(3))
            except ValueError:
                return None
            body = body[p.end():]
        calls.append((m.group(1), args))
    return calls or None


def merge_tools(messages):
    """Tool messages become result blocks of the user turn; results follow the order of the calls."""
    out, order = [], []
    for m in messages:
        m = dict(m)
        if m["role"] == "assistant":
            order = [c.get("id") for c in m.get("tool_calls") or []]
        if m["role"] not in ("user", "tool"):
            out.append(m)
            continue
        rank = order.index(m["tool_call_id"]) if m.get("tool_call_id") in order else 0
        block = (rank, m["content"]) if m["role"] == "tool" else (None, m["content"])
        if out and out[-1]["role"] == "user" and not out[-1].get("task"):
            out[-1]["blocks"].append(block)
            if m.get("task"):
                out[-1]["task"] = m["task"]
        else:
            out.append({**m, "role": "user", "blocks": [block]})
    for m in out:
        if "blocks" in m:
            results = iter(sorted((b for b in m["blocks"] if b[0] is not None), key=lambda b: b[0]))
            m["blocks"] = [f"<tool_result>{next(results)[1]}</tool_result>" if b[0] is not None else b[1]
                           for b in m["blocks"]]
    return out


def render(messages, thinking=False):
    messages = merge_tools(messages)
    if not any(m["role"] == "system" for m in messages) and any(m.get("tools") for m in messages):
        raise ValueError("tools belong on a system message")
    last = max((i for i, m in enumerate(messages) if m["role"] in ("user", "developer")), default=-1)
    drop = not any(m.get("tools") for m in messages)
    if thinking and drop:
        messages = [m for i, m in enumerate(messages) if m["role"] != "developer" or i >= last]
        last = max((i for i, m in enumerate(messages) if m["role"] in ("user", "developer")), default=-1)
    out = [BOS]
    for i, m in enumerate(messages):
        role, task = m["role"], m.get("task")
        if role in ("system", "developer"):
            out.append((USER if role == "developer" else "") + (m.get("content") or ""))
            if m.get("tools"):
                out.append("\n\n" + tools_block(m["tools"]))
            if m.get("response_format"):
                out.append(RESPONSE_FORMAT + dumps(m["response_format"]))
        elif role == "user":
            out.append(USER + "\n\n".join(m["blocks"]))
        elif role == "latest_reminder":
            out.append(REMINDER + m["content"])
        else:
            tasked = i > 0 and messages[i - 1].get("task")
            if thinking and not tasked and (not drop or i > last):
                out.append((m.get("reasoning_content") or "") + UNTHINK)
            out.append(m.get("content") or "")
            if m.get("tool_calls"):
                out.append("\n\n" + calls_block(m["tool_calls"]))
            out.append("" if m.get("wo_eos") else EOS)
        if i + 1 < len(messages) and messages[i + 1]["role"] not in ("assistant", "latest_reminder"):
            continue
        if task and task != "action":
            out.append(f"<｜{task}｜>")
        elif task == "action":
            out.append(ASSISTANT + (THINK if thinking else UNTHINK) + "<｜action｜>")
        elif role in ("user", "developer"):
            out.append(ASSISTANT + (THINK if thinking and (not drop or i >= last) else UNTHINK))
    return "".join(out)
