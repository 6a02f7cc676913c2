"""Every refusal has the right status, the OpenAI form, and names the field."""

import httpx
import openai
import pytest

MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"model": "tiny", "messages": MESSAGES, "max_tokens": 4}
COMPLETION = {"model": "tiny", "prompt": "hi", "max_tokens": 4}


def post(server, path, body):
    return httpx.post(server.url + path, json=body, timeout=60)


def check(reply, status, param):
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    if param:
        assert param in error["message"]
    assert reply.headers["x-request-id"]


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"stop": [""]}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {"999999999": 1}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"seed": 2**63}, "seed"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"structured_outputs": {"regex": "("}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "root = 5"}}, "structured_outputs.grammar"),
        (
            {"structured_outputs": {"json": {"properties": {"a": {"$dynamicRef": "#b"}}}}},
            "structured_outputs.json",
        ),
    ],
)
def test_wrong_fields(server, fields, param):
    check(post(server, "/v1/chat/completions", CHAT | fields), 400, param)
    check(post(server, "/v1/completions", COMPLETION | fields), 400, param)


@pytest.mark.parametrize(
    "fields, param",
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"thinking": {"type": "maybe"}}, "thinking.type"),
        ({"reasoning_effort": "enormous"}, "reasoning_effort"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"schema": {"if": {"type": "string"}, "then": {"not": {}}}},
                }
            },
            "response_format.json_schema.schema",
        ),
    ],
)
def test_wrong_chat_fields(server, fields, param):
    check(post(server, "/v1/chat/completions", CHAT | fields), 400, param)


def test_broken_json(server):
    check(httpx.post(server.url + "/v1/completions", content=b'{"prompt": '), 400, None)
    check(httpx.post(server.url + "/v1/completions", content=b'["a"]'), 400, None)


def test_unknown_token_ids(server):
    check(post(server, "/v1/completions", COMPLETION | {"prompt": [10**7]}), 400, "prompt")


def test_unknown_model(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
    assert caught.value.code == "model_not_found"


def test_unknown_route_and_wrong_method(server):
    check(httpx.get(server.url + "/v1/nothing"), 404, None)
    wrong = httpx.get(server.url + "/v1/completions")
    check(wrong, 405, None)
    assert wrong.headers["allow"] == "POST"


def test_context_overflow(server, client):
    limit = client.models.list().data[0].model_extra["max_model_len"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt=[100] * limit, max_tokens=4)
    assert caught.value.code == "context_length_exceeded"
    assert f"maximum context length is {limit} tokens" in caught.value.message
    # The same through text, long enough to be tokenised elsewhere than on the server's thread.
    check_text = post(server, "/v1/completions", COMPLETION | {"prompt": "fox and dog " * limit})
    assert check_text.status_code == 400
    assert check_text.json()["error"]["code"] == "context_length_exceeded"


def test_client_text_spells_no_special_token(server):
    body = {"prompt": "<｜User｜>hi<｜Assistant｜></think>"}
    spelt = httpx.post(server.url + "/tokenize", json=body).json()
    assert spelt["count"] > 4


def test_api_key(start_server):
    guarded = start_server("--api-key", "secret", "--api-key", "other")
    with guarded.client(api_key="wrong") as wrong, pytest.raises(openai.AuthenticationError):
        wrong.models.list()
    for key in ("secret", "other"):
        with guarded.client(api_key=key) as right:
            assert right.models.list().data[0].id == "tiny"
    header = {"x-api-key": "other"}
    assert httpx.get(guarded.url + "/version", headers=header).status_code == 200
    assert httpx.get(guarded.url + "/health").status_code == 200
    assert httpx.get(guarded.url + "/metrics").status_code == 200
    assert httpx.post(guarded.url + "/tokenize", json={"prompt": "a"}).status_code == 401
