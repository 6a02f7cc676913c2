"""Several requests at once, clients that go away, health, metrics, and the end of the server."""

import concurrent.futures
import json
import signal
import socket
import threading
import time

import httpx
import pytest

PROMPTS = [
    "Once upon a time",
    "The fox",
    "A dog and a cat went to the river because",
    "1 2 3 4 5 6",
    "Why is the sky",
    "He said",
    "In the morning the sun",
    "x",
]


def greedy(server, prompt, **fields):
    body = {"prompt": prompt, "max_tokens": 32, "temperature": 0, "return_token_ids": True}
    body |= {"ignore_eos": True} | fields
    reply = httpx.post(server.url + "/v1/completions", json=body, timeout=300)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["token_ids"]


def long_body(server, **fields):
    """A request that runs until the context is full."""
    limit = httpx.get(server.url + "/v1/models").json()["data"][0]["max_model_len"]
    return {"prompt": "Once", "max_tokens": limit, "temperature": 0, "ignore_eos": True} | fields


def test_answers_do_not_depend_on_company(server):
    alone = [greedy(server, prompt) for prompt in PROMPTS]
    with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as pool:
        for _ in range(2):
            together = list(pool.map(lambda prompt: greedy(server, prompt), PROMPTS))
            assert together == alone
        # Starts spread over time: prefills meet decodes.
        def late(numbered):
            time.sleep(0.05 * numbered[0])
            return greedy(server, numbered[1])

        assert list(pool.map(late, enumerate(PROMPTS))) == alone


def test_long_and_short_prompts_together(server):
    long = "The quick brown fox jumps over the lazy dog. " * 20
    expected = greedy(server, long), greedy(server, PROMPTS[0])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(greedy, server, text) for text in (long, PROMPTS[0]) * 2]
        got = [job.result() for job in jobs]
    assert got == [*expected, *expected]


def test_a_stream_that_is_dropped_frees_its_place(server):
    server.wait_idle()
    aborted = server.metric("seacliff:request_success_total", finished_reason="abort")
    body = long_body(server, stream=True)
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()  # kept: dropping it closes the connection
        next(lines)
        server.wait_running(1)
    server.wait_idle(5)
    after = server.metric("seacliff:request_success_total", finished_reason="abort")
    assert after == aborted + 1


def test_a_pending_reply_that_is_dropped_frees_its_place(server):
    server.wait_idle()
    body = json.dumps(long_body(server, n=2)).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        server.wait_running(2)
    server.wait_idle(5)


def test_raw_stream(server):
    """The bytes of a stream: headers, frames and the last line."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "stream": True}
    reply = httpx.post(server.url + "/chat/completions", json=body, timeout=60)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["x-request-id"]
    frames = [frame for frame in reply.text.split("\n\n") if frame and frame[0] != ":"]
    assert all(frame.startswith("data: ") for frame in frames)
    assert frames[-1] == "data: [DONE]"
    for frame in frames[:-1]:
        json.loads(frame[6:])


def test_http10(server):
    with socket.create_connection(("127.0.0.1", server.port)) as raw:
        raw.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        text = b""
        while piece := raw.recv(4096):
            text += piece
    assert text.startswith(b"HTTP/1.1 200")


def test_metrics_count(server):
    server.wait_idle()
    names = ("prompt_tokens_total", "generation_tokens_total", "e2e_request_latency_seconds_count")
    before = [server.metric("seacliff:" + name) for name in names]
    length = server.metric("vllm:request_success_total", finished_reason="length")
    reply = httpx.post(
        server.url + "/v1/completions",
        json={"prompt": "The fox", "max_tokens": 7, "ignore_eos": True},
        timeout=60,
    ).json()
    after = [server.metric("vllm:" + name) for name in names]
    grown = [b - a for a, b in zip(before, after)]
    assert grown == [reply["usage"]["prompt_tokens"], 7, 1]
    assert server.metric("vllm:request_success_total", finished_reason="length") == length + 1
    assert 0 <= server.metric("seacliff:kv_cache_usage_perc") <= 1


def test_models_and_version(server, client):
    models = client.models.list().data
    assert [model.id for model in models] == ["tiny"]
    assert client.models.retrieve("tiny").model_extra["max_model_len"] > 0
    assert httpx.get(server.url + "/version").json()["version"]
    assert httpx.get(server.url + "/ping").status_code == 200


def test_listens_while_loading(start_server):
    loading = start_server(wait=False)
    seen = set()
    deadline = time.monotonic() + 180
    while 200 not in seen and time.monotonic() < deadline:
        assert loading.process.poll() is None, loading.log()
        try:
            seen.add(httpx.get(loading.url + "/health", timeout=5).status_code)
        except httpx.TransportError:
            seen.add("refused")
    assert 200 in seen
    assert seen <= {"refused", 503, 200}


def test_sigterm_drains(start_server):
    draining = start_server()
    lines = []
    first = threading.Event()

    def read():
        body = long_body(draining, max_tokens=300, stream=True)
        with httpx.stream(
            "POST", draining.url + "/v1/completions", json=body, timeout=120
        ) as reply:
            for line in reply.iter_lines():
                lines.append(line)
                first.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert first.wait(60)
    draining.process.send_signal(signal.SIGTERM)
    refused = None
    deadline = time.monotonic() + 10
    while refused is None and time.monotonic() < deadline:
        try:
            reply = httpx.post(
                draining.url + "/v1/completions", json={"prompt": "a", "max_tokens": 1}, timeout=30
            )
        except httpx.TransportError:
            break  # it had finished already
        if reply.status_code == 503:
            refused = reply
    if refused is not None:
        assert refused.json()["error"]["code"] == "draining"
        assert refused.headers["retry-after"]
    reader.join(120)
    data = [line for line in lines if line.startswith("data: ")]
    assert data[-1] == "data: [DONE]"
    assert json.loads(data[-2][6:])["choices"][0]["finish_reason"] == "length"
    assert draining.process.wait(30) == 0
    if refused is None:
        pytest.skip("the model is too fast to see the refusal")


def test_a_second_signal_ends_it_at_once(start_server):
    stopping = start_server()
    body = long_body(stopping, stream=True)
    with httpx.stream("POST", stopping.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        next(lines)
        stopping.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        stopping.process.send_signal(signal.SIGTERM)
        stopping.process.wait(10)


# A grammar that takes far longer to compile than these tests.
SLOW = {"structured_outputs": {"regex": "(a?){2000}"}}


def test_a_long_compilation_holds_up_nobody_else(start_server):
    busy = start_server("--keep-alive", "0.2", "--drain-timeout", "1", "--max-waiting", "2")
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {}}}}}
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}

    def post(seconds=60, **fields):
        begun = time.monotonic()
        reply = httpx.post(busy.url + "/v1/chat/completions", json=chat | fields, timeout=60)
        assert time.monotonic() - begun < seconds
        return reply

    assert post(tools=[tool]).status_code == 200  # its grammar is known from here on
    late = post(3, timeout=0.5, **SLOW)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
    frames = post(3, timeout=1, stream=True, **SLOW).text.split("\n\n")
    assert frames.count(": keep-alive") > 2
    assert json.loads(frames[-3].removeprefix("data: "))["error"]["code"] == "timeout"
    assert frames[-2] == "data: [DONE]"

    body = json.dumps(chat | SLOW).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", busy.port)) as raw:
        raw.sendall(head + body)
        deadline = time.monotonic() + 10
        while busy.metric("vllm:num_requests_waiting") != 1:
            assert time.monotonic() < deadline
    busy.wait_idle(5)  # it is gone

    assert post(5, tools=[tool]).status_code == 200
    assert post(5).status_code == 200
    assert post(5, messages=[{"role": "user", "content": "hi " * 10_000}]).status_code in (200, 400)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        pending = [pool.submit(post, 10, **SLOW) for _ in range(2)]
        while busy.metric("vllm:num_requests_waiting") != 2:
            time.sleep(0.01)
        assert post(5).json()["error"]["code"] == "queue_full"
        busy.process.send_signal(signal.SIGTERM)
        assert [one.result().status_code for one in pending] == [503, 503]
    assert busy.process.wait(5) == 0
