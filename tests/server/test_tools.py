"""Tool calls of the real model through the official client: call, result, answer. What it calls is
its own choice where it may choose; the form is not."""

import json

import pytest

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
        "strict": True,
    },
}
LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light.",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"enum": ["kitchen", "hall"]},
                "state": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
            },
            "required": ["room", "state"],
        },
        "strict": True,
    },
}
QUESTION = {"role": "user", "content": "What is 17 plus 25?"}


def check_arguments(name, text):
    arguments = json.loads(text)
    if name == "add":
        assert set(arguments) == {"a", "b"}
        assert all(type(value) is int for value in arguments.values())
    else:
        assert name == "set_light"
        assert set(arguments) == {"room", "state"}
        assert arguments["room"] in ("kitchen", "hall")
        assert type(arguments["state"]["on"]) is bool


def reply_of(client, stream, **fields):
    """The message of a reply as a dict that can be sent back, and how it finished."""
    fields = {"model": "tiny", "tools": [ADD, LIGHT], "max_tokens": 400} | fields
    if not stream:
        choice = client.chat.completions.create(**fields).choices[0]
        return choice.message.model_dump(exclude_none=True), choice.finish_reason
    message, finish = {"role": "assistant", "content": ""}, None
    for chunk in client.chat.completions.create(stream=True, **fields):
        choice = chunk.choices[0]
        finish = choice.finish_reason or finish
        message["content"] += choice.delta.content or ""
        reasoning = getattr(choice.delta, "reasoning_content", None)
        if reasoning:
            message["reasoning_content"] = message.get("reasoning_content", "") + reasoning
        for call in choice.delta.tool_calls or []:
            calls = message.setdefault("tool_calls", [])
            if call.index == len(calls):
                calls.append(
                    {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": ""}}
                )
            calls[call.index]["function"]["arguments"] += call.function.arguments or ""
    return message, finish


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choice", ["auto", "required", "add", "set_light"])
@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
def test_the_round_trip(client, stream, choice, thinking):
    fields = {"extra_body": {"thinking": {"type": thinking}}, "temperature": 0}
    named = {"type": "function", "function": {"name": choice}}
    tool_choice = choice if choice in ("auto", "required") else named
    message, finish = reply_of(
        client, stream, messages=[QUESTION], tool_choice=tool_choice, **fields
    )
    if choice == "auto" and finish != "tool_calls":
        assert "tool_calls" not in message
        return
    assert finish == "tool_calls", message
    calls = message["tool_calls"]
    for call in calls:
        check_arguments(call["function"]["name"], call["function"]["arguments"])
    if choice not in ("auto", "required"):
        assert [call["function"]["name"] for call in calls] == [choice]
    assert len({call["id"] for call in calls}) == len(calls)

    results = [{"role": "tool", "tool_call_id": call["id"], "content": "42"} for call in calls]
    answer, finish = reply_of(client, stream, messages=[QUESTION, message, *results], **fields)
    assert finish in ("stop", "length", "tool_calls")
    assert answer.get("content") or answer.get("reasoning_content") or answer.get("tool_calls")
    # The same conversation as a whole and as a stream.
    other, _ = reply_of(client, not stream, messages=[QUESTION, message, *results], **fields)
    assert other.get("content") == answer.get("content")


def test_a_turn_of_calls_is_read_as_it_was_sampled(server, client):
    fields = {"extra_body": {"thinking": {"type": "enabled"}}, "temperature": 0}
    question = {"role": "user", "content": "What is 3 plus 4, please?"}
    message, finish = reply_of(client, False, messages=[question], tool_choice="required", **fields)
    assert finish == "tool_calls"
    before = server.metric("seacliff:spliced_turns_total")
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "7"} for c in message["tool_calls"]]
    reply_of(client, False, messages=[question, message, *results], **fields)
    assert server.metric("seacliff:spliced_turns_total") == before + 1


def test_one_call_if_no_more_are_wanted(client):
    for seed in range(4):
        message, finish = reply_of(
            client,
            False,
            messages=[QUESTION],
            tool_choice="required",
            parallel_tool_calls=False,
            seed=seed,
            extra_body={"thinking": {"type": "disabled"}},
        )
        if finish == "tool_calls":
            assert len(message["tool_calls"]) == 1


def test_no_call_where_none_is_wanted(client):
    message, finish = reply_of(client, False, messages=[QUESTION], tool_choice="none")
    assert finish in ("stop", "length")
    assert "tool_calls" not in message
