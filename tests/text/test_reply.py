"""Our reply parser against deepseek-recipe's: reasoning, content and stop strings, and tool calls.

Left out: where recipe forgets that newlines belong to a tag because a failed tag stands before them,
and stop strings that a stray tag interrupts (the content shows them whole, so we stop).
"""

import json
import random
import re

import deepseek_recipe as recipe

ATOMS = ["a", "b", " ", "\n", "\n\n", "<", "</", "</think>", "</thi", "nk>", "<think>", "é", "你好", "😀",
         "stop", "st", "op", "XY", "X", "```\n"]
STOPS = [[], [], ["stop"], ["XY", "Y"], ["\n\n"], ["ab", "b"], ["好"], ["a\n"]]


FAILED_TAG = re.compile(r"</?(t|th|thi)?\n+</think>")


def left_out(request):
    text = "".join(request["pieces"])
    stray = text.count("</think>") > request["reasoning"]
    return FAILED_TAG.search(text) or (stray and request["stop"])


def make(seed):
    r = random.Random(seed)
    pieces = [r.choice(ATOMS) for _ in range(r.randrange(1, 14))]
    mode = r.choice(["reasoning", "continued reasoning", "answer", "continued answer"])
    return {"pieces": pieces, "reasoning": "reasoning" in mode, "continues": "continued" in mode,
            "stop": r.choice(STOPS)}


def theirs(request):
    body = {"model": "DeepSeek-V4-Pro", "messages": [{"role": "user", "content": "q"}], "stream": True}
    if request.get("calls"):
        body["tools"] = [{"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
                         for name in NAMES]
    converted = recipe.ChatCompletionRequest(body).convert(recipe.ConversionOptions())
    generator = recipe.ChatCompletionRequest.chunk_generator(converted, "id", "m")
    stage = None
    if request["reasoning"]:
        stage = (recipe.ThinkingInitialStage.ReasoningContinuation if request["continues"]
                 else recipe.ThinkingInitialStage.ReasoningStart)
    elif request["continues"]:
        stage = recipe.ThinkingInitialStage.ContentContinuation
    processor = recipe.StreamProcessor(generator, recipe.ParsingOptions(
        parse_tool_calls=request.get("calls", False), thinking_initial_stage=stage, stop_sequences=request["stop"]))
    chunks = processor.push(recipe.InferenceChunk.ready())
    for piece in request["pieces"]:
        if not processor.finished:
            chunks += processor.push(recipe.InferenceChunk.text(piece, 1))
    if not processor.finished:
        chunks += processor.push(recipe.InferenceChunk.finish(recipe.InferenceFinishReason.Stop))
    chunks += processor.finish()
    reasoning, content, calls = "", "", {}
    for chunk in chunks:
        for choice in json.loads(chunk.to_json())["choices"]:
            reasoning += choice["delta"].get("reasoning_content") or ""
            content += choice["delta"].get("content") or ""
            for call in choice["delta"].get("tool_calls") or []:
                known = calls.setdefault(call["index"], ["", ""])
                known[0] += call["function"].get("name") or ""
                known[1] += call["function"].get("arguments") or ""
    return reasoning, content, list(calls.values())


def test_agrees_with_recipe(driver, slow):
    count = 20000 if slow else 2000
    requests = [make(seed) for seed in range(count)]
    requests = [r for r in requests if not left_out(r)]
    assert len(requests) > 0.7 * count
    for request, ours in zip(requests, driver.lines("reply", requests)):
        assert (ours["reasoning"], ours["content"], []) == theirs(request), request


NAMES = ["look", "write_file", "f"]
TEXTS = ["", "a", "x < y", "</div>\n", "2>&1", '"q" \\n', "\t{}", "毕 😀", "</", "\n\n", "<a b=\"c\">", "\u0001"]
VALUES = ["1", "-2.50", "1e30", "true", "null", '"s"', '[1, {"a": "b"}]', '{"k":[]}']


def make_calls(seed):
    r = random.Random(seed)
    v41 = r.random() < 0.3
    tag = lambda word: ("｜DSML｜ " if v41 else "｜DSML｜") + word
    text = r.choice(["", "Let me see.", "a < b", "First.\n\nThen."])
    text += f"\n\n<{tag('calls' if v41 else 'tool_calls')}>\n"
    for _ in range(r.randrange(1, 4)):
        parameters = []
        for key in r.sample(["path", "text", "n", "a_b", "é"], r.randrange(0, 4)):
            if r.random() < 0.6:
                value, form = "".join(r.choice(TEXTS) for _ in range(r.randrange(0, 4))), "true"
            else:
                value, form = r.choice(VALUES), "false"
            parameters.append(f'<{tag("parameter")} name="{key}" string="{form}">{value}</{tag("parameter")}>')
        text += f'<{tag("invoke")} name="{r.choice(NAMES)}">\n' + "\n".join(parameters) + f'\n</{tag("invoke")}>\n'
    text += f"</{tag('calls' if v41 else 'tool_calls')}>"
    pieces = []
    while text:
        cut = r.randrange(1, 12)
        pieces, text = pieces + [text[:cut]], text[cut:]
    return {"pieces": pieces, "reasoning": False, "continues": False, "stop": [], "calls": True}


def test_calls_agree_with_recipe(driver, slow):
    requests = [make_calls(seed) for seed in range(10000 if slow else 1000)]
    for request, ours in zip(requests, driver.lines("reply", requests)):
        reasoning, content, calls = theirs(request)
        assert (ours["reasoning"], ours["content"]) == (reasoning, content), request
        assert ours["calls"] == calls, request
