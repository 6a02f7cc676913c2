"""Every kind of reply (encoding.md 3.1 to 3.5) through the real server and the official client: what
the model says is scripted, in tokens of every cut and steps of every size."""

import json

import pytest

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a place.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                },
                "required": ["city"],
            },
        },
    },
    {"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}},
    {
        "type": "function",
        "function": {
            "name": "run",
            "parameters": {
                "type": "object",
                "properties": {"code": {"type": "string"}, "args": {"type": "array"}},
            },
        },
    },
]
# How a reply's bytes become tokens, and tokens steps.
CUTS = [
    {},
    {"step": 3},
    {"step": 10**6},
    {"cut": "bytes"},
    {"cut": "bytes", "step": 5},
    {"cut": "random", "seed": 1},
    {"cut": "random", "seed": 2, "step": 2},
    {"cut": "random", "seed": 3, "step": 7},
]


def parameter(name, value, is_string="true"):
    return f'<｜DSML｜parameter name="{name}" string="{is_string}">{value}</｜DSML｜parameter>'


def invoke(name, *parameters):
    inner = "\n".join(parameters)
    return f'<｜DSML｜invoke name="{name}">\n{inner}\n</｜DSML｜invoke>'


def block(*invokes):
    return "\n\n<｜DSML｜tool_calls>\n" + "\n".join(invokes) + "\n</｜DSML｜tool_calls>"


def ask(client, prompt, **fields):
    fields = {"tools": TOOLS} | fields
    messages = fields.pop("messages", [{"role": "user", "content": prompt}])
    extra = fields.pop("extra_body", {})
    fields.setdefault("max_tokens", 2000)
    return client.chat.completions.create(
        model="tiny", messages=messages, extra_body=extra, **fields
    )


def whole_of(reply):
    choice = reply.choices[0]
    message = choice.message
    return {
        "reasoning": getattr(message, "reasoning_content", None) or "",
        "content": message.content or "",
        "calls": [(c.function.name, c.function.arguments) for c in message.tool_calls or []],
        "finish": choice.finish_reason,
    }


def stream_of(chunks):
    """What a stream comes to; the rules of its order and its deltas are checked on the way."""
    out = {"reasoning": "", "content": "", "calls": [], "finish": None}
    ids = set()
    order = ["reasoning", "content", "calls", "finish"]
    at = -1  # of order
    first = True

    def reached(part):
        nonlocal at
        assert order.index(part) >= at, f"{part} after {order[at]}"
        at = order.index(part)

    for chunk in chunks:
        if not chunk.choices:
            continue
        choice = chunk.choices[0]
        delta = choice.delta.model_dump(exclude_unset=True)
        if first:
            assert delta == {"role": "assistant", "content": "", "reasoning_content": None}
            first = False
            continue
        if choice.finish_reason:
            reached("finish")
            assert delta in ({}, {"content": ""})
            out["finish"] = choice.finish_reason
            continue
        assert out["finish"] is None
        if "reasoning_content" in delta:
            assert set(delta) == {"reasoning_content", "reasoning"}
            assert delta["reasoning"] == delta["reasoning_content"]
            reached("reasoning")
            out["reasoning"] += delta["reasoning_content"]
        elif "tool_calls" in delta:
            assert set(delta) == {"tool_calls"}
            reached("calls")
            for call in delta["tool_calls"]:
                if call["index"] == len(out["calls"]):
                    assert set(call) == {"index", "id", "type", "function"}
                    assert call["type"] == "function"
                    assert call["id"].startswith("call_")
                    assert call["id"] not in ids
                    ids.add(call["id"])
                    assert call["function"]["arguments"] == ""
                    out["calls"].append((call["function"]["name"], ""))
                else:
                    assert call["index"] == len(out["calls"]) - 1
                    assert set(call) == {"index", "function"}
                    assert set(call["function"]) == {"arguments"}
                    name, arguments = out["calls"][-1]
                    out["calls"][-1] = (name, arguments + call["function"]["arguments"])
        else:
            assert set(delta) == {"content"}
            reached("content")
            out["content"] += delta["content"]
    return out


def said(scripted, client, say, obey=False, **fields):
    """What a reply comes to; the same whole and in a stream, whatever the cut."""
    say = [say] if isinstance(say, str) else say
    results = []
    for cut in CUTS:
        prompt = scripted.script(*say, obey=obey, **cut)
        whole = whole_of(ask(client, prompt, **fields))
        with ask(client, prompt, stream=True, **fields) as chunks:
            streamed = stream_of(chunks)
        if streamed != whole:
            # A call that was cut off has been begun in the stream; a reply as a whole has none.
            assert whole["calls"] == streamed["calls"][: len(whole["calls"])], cut
            assert len(streamed["calls"]) == len(whole["calls"]) + 1
            with pytest.raises(json.JSONDecodeError):
                json.loads(streamed["calls"][-1][1])
            assert {**whole, "calls": None} == {**streamed, "calls": None}
        results.append(whole)
        for name, arguments in whole["calls"]:
            assert isinstance(json.loads(arguments), dict)
        assert "DSML" not in whole["content"] + whole["reasoning"]
    assert all(result == results[0] for result in results)
    result = results[0]
    result["calls"] = [(name, json.loads(arguments)) for name, arguments in result["calls"]]
    return result


def expect(reasoning="", content="", calls=(), finish="stop"):
    return {"reasoning": reasoning, "content": content, "calls": list(calls), "finish": finish}


@pytest.fixture(scope="module")
def client(scripted):
    with scripted.client() as made:
        yield made


ROME = invoke("get_weather", parameter("city", "Rome"))
ROME_CALL = ("get_weather", {"city": "Rome"})

# What the model says, and what the client gets. Thinking is on: the prompt ends with <think>.
CASES = {
    "an answer": ("Let me see.</think>Hello!", expect("Let me see.", "Hello!")),
    "newlines around reasoning": ("\n\nHm.\n\n</think>\n\nHello!", expect("Hm.", "Hello!")),
    "a stray end of thinking": ("Hm.</think>Hel</think>lo!", expect("Hm.", "Hello!")),
    "thinking without an end": ("Hm, so be it.", expect("Hm, so be it.")),
    "text of other scripts": ("é 毕 🦊</think>ĠÑĤ 👩‍👩‍👧 한국어", expect("é 毕 🦊", "ĠÑĤ 👩‍👩‍👧 한국어")),
    "a call": ("Hm.</think>" + block(ROME), expect("Hm.", "", [ROME_CALL], "tool_calls")),
    "a call after text": (
        "Hm.</think>Done." + block(ROME),
        expect("Hm.", "Done.", [ROME_CALL], "tool_calls"),
    ),
    "a call right after a stop": (
        "Hm.</think>Done.<｜DSML｜tool_calls>\n" + ROME + "\n</｜DSML｜tool_calls>",
        expect("Hm.", "Done.", [ROME_CALL], "tool_calls"),
    ),
    "several calls": (
        "</think>" + block(ROME, invoke("now"), invoke("run", parameter("code", "ls"))),
        expect("", "", [ROME_CALL, ("now", {}), ("run", {"code": "ls"})], "tool_calls"),
    ),
    "parameters of all types": (
        "</think>"
        + block(
            invoke(
                "get_weather",
                parameter("city", "Rome"),
                parameter("days", "2", "false"),
                parameter("exact", "true", "false"),
            ),
            invoke("run", parameter("args", '[1, {"a": null}]', "false")),
        ),
        expect(
            "",
            "",
            [
                ("get_weather", {"city": "Rome", "days": 2, "exact": True}),
                ("run", {"args": [1, {"a": None}]}),
            ],
            "tool_calls",
        ),
    ),
    "a call inside open thinking": (
        "I need it." + block(ROME),
        expect("I need it.", "", [ROME_CALL], "tool_calls"),
    ),
    "text behind the block": (
        "</think>" + block(ROME) + "\n\nNow we wait." + block(invoke("now")),
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "strings with everything in them": (
        "</think>"
        + block(invoke("run", parameter("code", 'if a < b:\n\t"</div>" 2>&1 \\n </ | <x/> é🦊\n'))),
        expect("", "", [("run", {"code": 'if a < b:\n\t"</div>" 2>&1 \\n </ | <x/> é🦊\n'})], "tool_calls"),
    ),
    "an empty string": (
        "</think>" + block(invoke("run", parameter("code", ""))),
        expect("", "", [("run", {"code": ""})], "tool_calls"),
    ),
    "a name with quotes among parameters": (
        "</think>" + block(invoke("run", parameter("日本", "x"))),
        expect("", "", [("run", {"日本": "x"})], "tool_calls"),
    ),
    # 3.4, line by line.
    "the outer tag is never closed": (
        "</think>\n\n<｜DSML｜tool_calls>\n" + ROME,
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "a misspelt wrapper": (
        "</think>\n\n<｜DSML｜toolcalls>\n" + ROME + "\n</｜DSML｜toolcalls>",
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "no wrapper": ("</think>Well.\n\n" + ROME, expect("", "Well.", [ROME_CALL], "tool_calls")),
    "an unknown tool": (
        "</think>" + block(invoke("fly", parameter("to", "Rome"))),
        expect("", "", [("fly", {"to": "Rome"})], "tool_calls"),
    ),
    "a parameter that comes twice": (
        "</think>" + block(invoke("get_weather", parameter("city", "Oslo"), parameter("city", "Rome"))),
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "a string called JSON": (
        "</think>" + block(invoke("get_weather", parameter("city", "Rome", "false"))),
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "JSON as Python has it": (
        "</think>"
        + block(invoke("get_weather", parameter("city", "Rome"), parameter("exact", "True", "false"))),
        expect("", "", [("get_weather", {"city": "Rome", "exact": True})], "tool_calls"),
    ),
    "a number called a string": (
        "</think>"
        + block(invoke("get_weather", parameter("city", "Rome"), parameter("days", "3"))),
        expect("", "", [("get_weather", {"city": "Rome", "days": 3})], "tool_calls"),
    ),
    "arguments in an object of their own": (
        "</think>" + block(invoke("get_weather", parameter("arguments", '{"city": "Rome"}', "false"))),
        expect("", "", [ROME_CALL], "tool_calls"),
    ),
    "the reply ends inside a value": (
        '</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="get_weather">\n'
        '<｜DSML｜parameter name="city" string="true">Ro',
        expect(finish="length"),
    ),
    "the reply ends inside the second call": (
        "</think>\n\n<｜DSML｜tool_calls>\n" + ROME + '\n<｜DSML｜invoke name="run">\n'
        '<｜DSML｜parameter name="code" string="true">l',
        expect("", "", [ROME_CALL], "length"),
    ),
    "a header ends the reply": ("</think>Hello!<｜User｜>And you?", expect("", "Hello!")),
}


@pytest.mark.parametrize("name", CASES)
def test_replies(scripted, client, name):
    say, wanted = CASES[name]
    assert said(scripted, client, say) == wanted


@pytest.mark.parametrize("name", list(CASES)[: list(CASES).index("an empty string") + 1])
def test_rules_let_pass_what_is_well_formed(scripted, client, name):
    say, wanted = CASES[name]
    # Nothing can follow the block.
    say = say.split("</｜DSML｜tool_calls>")[0] + "</｜DSML｜tool_calls>" * ("tool_calls" in say)
    assert said(scripted, client, say, obey=True) == wanted


@pytest.mark.parametrize(
    "begin", ["</think>Well.<｜DSML｜toolcalls>", "Hm.\n\n<｜DSML｜invoke name=", "</think>a < b<｜DSML｜x"]
)
def test_rules_make_a_call_of_a_block_that_goes_wrong(scripted, client, begin):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": {}}}}]
    fields = {"tools": tools, "parallel_tool_calls": False}
    assert said(scripted, client, begin, obey=True, **fields)["calls"] == [("f", {})]


@pytest.mark.parametrize("name", ["an answer", "a call after text", "several calls"])
def test_replies_without_thinking(scripted, client, name):
    say, wanted = CASES[name]
    wanted = {**wanted, "reasoning": ""}
    extra = {"thinking": {"type": "disabled"}}
    assert said(scripted, client, say.split("</think>")[1], extra_body=extra) == wanted


def test_tags_spelt_in_ordinary_tokens_are_text(scripted, client):
    text = "The tag is <｜DSML｜tool_calls>, and </think> ends thinking."
    plain = {"plain": text}
    fields = {"extra_body": {"thinking": {"type": "disabled"}}}
    for cut in CUTS:
        reply = ask(client, scripted.script(plain, **cut), **fields)
        assert reply.choices[0].message.content == text
    # Inside a value too.
    say = [
        '</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="run">\n'
        '<｜DSML｜parameter name="code" string="true">',
        plain,
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    ]
    for cut in CUTS:
        reply = whole_of(ask(client, scripted.script(*say, **cut)))
        assert [json.loads(arguments) for _, arguments in reply["calls"]] == [{"code": text}]


@pytest.mark.parametrize("fields", [{"tools": []}, {"tool_choice": "none"}])
def test_blocks_that_nobody_asked_for_are_no_content(scripted, client, fields):
    wanted = expect("Hm.", "Done.")
    assert said(scripted, client, "Hm.</think>Done." + block(ROME), **fields) == wanted


def test_one_call_where_no_more_are_wanted(scripted, client):
    say = "</think>" + block(ROME, invoke("now"))
    wanted = expect("", "", [ROME_CALL], "tool_calls")
    assert said(scripted, client, say, parallel_tool_calls=False) == wanted


def test_stop_strings_count_in_content_alone(scripted, client):
    say = "One, two, three.</think>One, two, three." + block(ROME)
    assert said(scripted, client, say, stop=["never", "two"]) == expect("One, two, three.", "One, ")
    say = "Hm.</think>" + block(invoke("run", parameter("code", "stop here")))
    wanted = expect("Hm.", "", [("run", {"code": "stop here"})], "tool_calls")
    assert said(scripted, client, say, stop=["here"]) == wanted
    say = "Hm.</think>Overlapping aabaac"
    assert said(scripted, client, say, stop=["aac", "baacd"]) == expect("Hm.", "Overlapping aab")


def test_every_truncation_is_a_valid_reply(scripted, client):
    """Cut after any token: whole calls or none, and `length`."""
    say = "Hm.</think>Well." + block(
        invoke("get_weather", parameter("city", "Rome"), parameter("days", "2", "false")), invoke("now")
    )
    full = whole_of(ask(client, scripted.script(say)))
    seen = set()
    for limit in range(1, 400):
        prompt = scripted.script(say, step=1000)
        whole = whole_of(ask(client, prompt, max_tokens=limit))
        assert "DSML" not in whole["content"] + whole["reasoning"]
        # What leads to a block is content as long as nobody knows of the block.
        assert full["content"].startswith(whole["content"].rstrip("\n<"))
        for (name, arguments), (full_name, full_arguments) in zip(whole["calls"], full["calls"]):
            # The last one may lack what is not required.
            assert name == full_name
            assert json.loads(arguments).items() <= json.loads(full_arguments).items()
            assert name != "get_weather" or "city" in json.loads(arguments)
        if limit % 5 == 0:
            with ask(client, prompt, max_tokens=limit, stream=True) as chunks:
                streamed = stream_of(chunks)
            assert streamed["calls"][: len(whole["calls"])] == whole["calls"]
            assert {**streamed, "calls": 0} == {**whole, "calls": 0}
        seen.add(len(whole["calls"]))
        if whole["finish"] != "length":
            assert whole == full
            break
    assert seen == {0, 1, 2}


def test_bytes_that_are_no_text(scripted, client):
    """Half a character at the end, and one that never was any."""
    half = {"ids": [scripted_byte(scripted, 0xE6)]}
    extra = {"thinking": {"type": "disabled"}}
    for say in (["a", half], ["a", half, "b"]):
        reply = ask(client, scripted.script(*say), extra_body=extra)
        assert reply.choices[0].message.content == "a\ufffd" + "".join(say[2:])
        with ask(client, scripted.script(*say), extra_body=extra, stream=True) as chunks:
            assert stream_of(chunks)["content"] == "a\ufffd" + "".join(say[2:])


def scripted_byte(server, byte):
    """The id of the token that is this one byte: after 188 printable ones come the others."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in printable]
    return 3 + (printable.index(byte) if byte in printable else len(printable) + others.index(byte))


def test_a_silent_stream_is_kept_alive(start_scripted):
    import httpx

    server = start_scripted(keep_alive_ms=100)
    body = {
        "messages": [{"role": "user", "content": server.script("</think>Hi", wait=450)}],
        "stream": True,
    }
    reply = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=30)
    frames = reply.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    comments = [i for i, frame in enumerate(frames) if frame == ": keep-alive"]
    assert 2 <= len(comments) <= 5
    # While the prompt is read: before anything is said.
    assert max(comments) < min(i for i, frame in enumerate(frames) if frame.startswith("data: "))


def test_a_failure_within_a_stream(scripted, client):
    import httpx
    import openai

    prompt = scripted.script("</think>Hello!", fail_after=2)
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True}
    reply = httpx.post(scripted.url + "/v1/chat/completions", json=body, timeout=30)
    assert reply.status_code == 200
    frames = [frame.removeprefix("data: ") for frame in reply.text.split("\n\n")]
    assert frames[-2:] == ["[DONE]", ""]
    error = json.loads(frames[-3])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "server_error"
    assert not any(json.loads(f)["choices"][0]["finish_reason"] for f in frames[:-3])
    with pytest.raises(openai.APIError):
        list(ask(client, prompt, stream=True))
    with pytest.raises(openai.InternalServerError):
        ask(client, prompt)
    # Before the first byte the status tells.
    body["messages"][0]["content"] = scripted.script("Hello!", fail_after=0)
    reply = httpx.post(scripted.url + "/v1/chat/completions", json=body, timeout=30)
    assert reply.status_code == 500
