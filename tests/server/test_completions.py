"""Raw completions through the official client."""


def complete(client, prompt="Once upon a time", **fields):
    extra = fields.pop("extra_body", {})
    fields.setdefault("temperature", 0)
    fields.setdefault("max_tokens", 16)
    return client.completions.create(model="tiny", prompt=prompt, extra_body=extra, **fields)


def tokenize(server, text):
    import httpx

    return httpx.post(server.url + "/tokenize", json={"prompt": text}).json()["tokens"]


def test_a_completion_and_its_stream(client):
    whole = complete(client)
    assert whole.id.startswith("cmpl-")
    assert whole.object == "text_completion"
    chunks = list(complete(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason


def test_prompts_of_every_form(server, client):
    texts = ["Once upon a time", "The sun"]
    ids = [tokenize(server, text) for text in texts]
    alone = [complete(client, text).choices[0].text for text in texts]
    assert complete(client, ids[0]).choices[0].text == alone[0]
    for prompts in (texts, ids):
        reply = complete(client, prompts)
        assert [choice.text for choice in reply.choices] == alone
        assert reply.usage.prompt_tokens == sum(map(len, ids))


def test_n_of_several_prompts(client):
    reply = complete(client, ["a", "b"], n=2)
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.choices[0].text == reply.choices[1].text  # greedy


def test_echo(client):
    plain = complete(client).choices[0].text
    assert complete(client, echo=True).choices[0].text == "Once upon a time" + plain


def test_echo_tells_the_logprobs_that_the_tokens_were_sampled_with(client):
    said = complete(client, logprobs=3, extra_body={"return_token_ids": True}).choices[0]
    ids = said.model_extra["prompt_token_ids"] + said.model_extra["token_ids"]
    for fields in ({"max_tokens": 0}, {"max_tokens": 1}, {"max_tokens": 1, "stream": True}):
        reply = complete(client, ids, echo=True, logprobs=3, **fields)
        chunks = list(reply) if "stream" in fields else [reply]
        told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
        values = sum((part.token_logprobs for part in told), [])
        tops = sum((part.top_logprobs for part in told), [])
        assert values[0] is None and tops[0] is None
        begin = len(ids) - len(said.logprobs.token_logprobs)
        assert values[begin : len(ids)] == said.logprobs.token_logprobs
        assert tops[begin : len(ids)] == said.logprobs.top_logprobs
        assert len(values) == len(ids) + fields["max_tokens"]


def test_ignore_eos_gives_every_token(client):
    reply = complete(client, max_tokens=40, extra_body={"ignore_eos": True})
    assert reply.usage.completion_tokens == 40
    assert reply.choices[0].finish_reason == "length"


def test_stop_token_ids(client):
    ids = complete(client, extra_body={"return_token_ids": True}).choices[0].model_extra[
        "token_ids"
    ]
    stop = ids[len(ids) // 2]
    reply = complete(client, extra_body={"return_token_ids": True, "stop_token_ids": [stop]})
    got = reply.choices[0].model_extra["token_ids"]
    assert got == ids[: ids.index(stop) + 1]
    assert reply.choices[0].finish_reason == "stop"


def test_logprobs(client):
    reply = complete(client, logprobs=2)
    logprobs = reply.choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert all(value <= 0 for value in logprobs.token_logprobs)
    assert logprobs.text_offset[0] == 0
    for token, value, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs):
        assert top[token] == value


def test_tokenize_and_back(server):
    import httpx

    text = "Hello, fox! 123 毕老师 é"
    ids = tokenize(server, text)
    back = httpx.post(server.url + "/v1/detokenize", json={"tokens": ids}).json()
    assert back["prompt"] == text
