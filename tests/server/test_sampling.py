"""What a request says about sampling, seen from outside: each draw is checked against what the model
said at that place (`logprobs` are of the raw distribution)."""

import collections
import subprocess

import httpx
import pytest

from conftest import BINARY, MODEL


def complete(server, **fields):
    body = {"model": "tiny", "prompt": "Once upon a time there was a fox. The fox", "temperature": 0,
            "return_token_ids": True, "ignore_eos": True, "max_tokens": 48} | fields
    reply = httpx.post(server.url + "/v1/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]


def ids(server, **fields):
    return complete(server, **fields)["token_ids"]


@pytest.mark.parametrize("presence, frequency", [(0, 0), (2, 0), (0, 2), (1.5, 0.5), (-1, -0.5)])
def test_presence_and_frequency_penalties(server, presence, frequency):
    """Greedy: each token is the best of the 20 likeliest, less what its count so far costs."""
    logprobs = complete(server, presence_penalty=presence, frequency_penalty=frequency,
                        logprobs=20)["logprobs"]
    counts = collections.Counter()
    for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"]):
        def score(text, top=top):
            return top[text] - presence * (counts[text] > 0) - frequency * counts[text]
        assert score(token) >= max(map(score, top)) - 1e-4
        counts[token] += 1
    assert len(counts) > 1


def test_repetition_penalty(server):
    """Above 1 repeats less than none does, below 1 more."""
    kinds = [len(set(ids(server, repetition_penalty=penalty, max_tokens=100)))
             for penalty in (0.5, 1, 2)]
    assert kinds[0] < kinds[1] < kinds[2]


def test_min_tokens_holds_stop_tokens_back(server):
    """The forced token ends the reply, but not before its time."""
    forced = ids(server)[0]
    fields = {"logit_bias": {str(forced): 100}, "stop_token_ids": [forced], "ignore_eos": False}
    assert ids(server, **fields) == [forced]
    got = ids(server, min_tokens=5, **fields)
    assert len(got) == 6 and got[-1] == forced and forced not in got[:-1]


def test_the_end_of_sentence_is_held_back_too(server):
    end = special("<｜end▁of▁sentence｜>")
    fields = {"logit_bias": {str(end): 100}, "ignore_eos": False}
    assert ids(server, **fields) == [end]
    got = ids(server, min_tokens=3, **fields)
    assert len(got) == 4 and end not in got[:-1]
    assert ids(server, **fields | {"ignore_eos": True, "max_tokens": 4}) == [end] * 4


def special(text):
    run = subprocess.run([BINARY, "tokenize", MODEL, "-p", text, "--ids", "--special"],
                         capture_output=True, text=True, check=True)
    (only,) = run.stdout.split()
    return int(only)


def test_some_tokens_are_never_drawn(server):
    """Padding is banned by its text, whatever the client wants; the same model writes others."""
    pad, think = special("<｜▁pad▁｜>"), special("<think>")
    for temperature in (0, 2):
        assert pad not in ids(server, logit_bias={str(pad): 100}, temperature=temperature)
    assert think in ids(server, logit_bias={str(think): 100})


def test_top_logprobs_have_bytes(server):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8,
            "thinking": {"type": "disabled"}, "logprobs": True, "top_logprobs": 5, "temperature": 1}
    reply = httpx.post(server.url + "/v1/chat/completions", json=body, timeout=120).json()
    for token in reply["choices"][0]["logprobs"]["content"]:
        assert len(token["top_logprobs"]) == 5
        for one in [token, *token["top_logprobs"]]:
            assert bytes(one["bytes"]).decode(errors="replace") == one["token"]


def test_seed_and_n_repeat(server):
    body = {"model": "tiny", "prompt": "The", "temperature": 1.5, "seed": 11, "n": 3, "max_tokens": 12,
            "return_token_ids": True}
    def draw(**fields):
        reply = httpx.post(server.url + "/v1/completions", json=body | fields, timeout=120).json()
        return [choice["token_ids"] for choice in reply["choices"]]
    first = draw()
    assert draw() == first
    assert len({tuple(choice) for choice in first}) == 3
    # Choice i is drawn with seed + i.
    assert draw(seed=12, n=2) == first[1:]
