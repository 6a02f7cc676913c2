"""Chat completions through the official client."""

import pytest

USER = [{"role": "user", "content": "Tell me a story about a fox."}]


def ask(client, **fields):
    extra = fields.pop("extra_body", {})
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 24)
    return client.chat.completions.create(
        model="tiny", messages=fields.pop("messages", USER), extra_body=extra, **fields
    )


def texts(chunks):
    """The reasoning and the content of a stream, joined."""
    reasoning, content = "", ""
    for chunk in chunks:
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            content += choice.delta.content or ""
    return reasoning, content


def test_a_reply(client):
    reply = ask(client)
    assert reply.id.startswith("chatcmpl-")
    assert reply.model == "tiny"
    assert reply.object == "chat.completion"
    choice = reply.choices[0]
    assert choice.message.role == "assistant"
    assert choice.finish_reason in ("stop", "length")
    assert choice.message.content or choice.message.reasoning_content
    assert reply.usage.prompt_tokens > 5
    assert 0 < reply.usage.completion_tokens <= 24
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("thinking", ["enabled", "disabled"])
def test_a_stream_says_what_a_reply_says(client, thinking):
    extra = {"thinking": {"type": thinking}}
    whole = ask(client, extra_body=extra)
    chunks = list(
        ask(client, extra_body=extra, stream=True, stream_options={"include_usage": True})
    )
    reasoning, content = texts(chunks)
    message = whole.choices[0].message
    assert content == message.content
    assert reasoning == (message.reasoning_content or "")
    if thinking == "disabled":
        assert reasoning == ""

    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c for c in chunks if c.choices and c.choices[0].finish_reason][0] is chunks[-2]
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-2])
    assert len({chunk.id for chunk in chunks}) == 1
    # Reasoning comes first, and never together with content.
    seen_content = False
    for chunk in chunks[:-2]:
        delta = chunk.choices[0].delta
        thought = getattr(delta, "reasoning_content", None)
        assert not (thought and delta.content)
        seen_content = seen_content or bool(delta.content)
        assert not (seen_content and thought)


def test_ways_to_switch_thinking_off(client):
    plain = ask(client, extra_body={"thinking": {"type": "disabled"}})
    for extra in (
        {"chat_template_kwargs": {"thinking": False}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"reasoning_effort": "none"},
    ):
        reply = ask(client, extra_body=extra)
        assert reply.choices[0].message.content == plain.choices[0].message.content
        assert reply.choices[0].message.reasoning_content is None
        assert reply.usage == plain.usage


def test_greedy_replies_repeat(client):
    assert ask(client).choices[0].message == ask(client).choices[0].message


def test_a_seed_repeats(client):
    def draw(seed):
        reply = ask(client, temperature=1, seed=seed, extra_body={"return_token_ids": True})
        return reply.choices[0].model_extra["token_ids"]

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(6)}) > 1


def test_several_choices(client):
    reply = ask(client, n=3, temperature=1, seed=3)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    streamed = {0: "", 1: "", 2: ""}
    ends = 0
    for chunk in ask(client, n=3, temperature=1, seed=3, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            ends += choice.finish_reason is not None
    assert ends == 3
    assert streamed == {c.index: c.message.content for c in reply.choices}


def test_logprobs(client):
    reply = ask(
        client, logprobs=True, top_logprobs=3, extra_body={"thinking": {"type": "disabled"}}
    )
    tokens = reply.choices[0].logprobs.content
    assert tokens
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 3
        best = [top.logprob for top in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert token.top_logprobs[0].token == token.token  # greedy
    spelt = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    assert spelt == reply.choices[0].message.content


def test_stop_strings(client):
    extra = {"thinking": {"type": "disabled"}}
    text = ask(client, extra_body=extra).choices[0].message.content
    if len(text) < 8:
        pytest.skip("the model says too little")
    stop = text[4:7]
    reply = ask(client, stop=[stop, "never said"], extra_body=extra)
    assert reply.choices[0].message.content == text[: text.index(stop)]
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].model_extra["stop_reason"] == stop


def test_max_tokens_and_min_tokens(client):
    reply = ask(client, max_tokens=5, extra_body={"min_tokens": 5})
    assert reply.usage.completion_tokens == 5
    assert reply.choices[0].finish_reason == "length"


def test_a_huge_max_tokens_is_cut_to_the_context(client):
    reply = ask(client, max_tokens=10**9, stop=[" "], extra_body={"thinking": {"type": "disabled"}})
    assert reply.choices[0].finish_reason in ("stop", "length")


def test_conversations(client):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi!", "reasoning_content": "A greeting."},
        {"role": "user", "content": "And now?"},
    ]
    assert ask(client, messages=messages).usage.prompt_tokens > 10


def test_logit_bias_forbids_and_forces(client):
    extra = {"thinking": {"type": "disabled"}, "return_token_ids": True}
    first = ask(client, max_tokens=1, extra_body=extra).choices[0].model_extra["token_ids"][0]
    other = (
        ask(client, max_tokens=1, logit_bias={str(first): -100}, extra_body=extra)
        .choices[0]
        .model_extra["token_ids"][0]
    )
    assert other != first
