"""seacliff bench serve, and the same load without HTTP: what is sent, counted, reported, refused."""

import json
import re
import socket
import threading

import numpy
import pytest

import fake_openai
from test_terminal import Terminal

LOAD = ("--input-len", 40, "--output-len", 6, "--num-prompts", 4)
NAMES = ("ttft", "tpot", "itl", "e2el")


def bench(seacliff, url, *arguments, warmups=0):
    return seacliff("bench", "serve", "--base-url", url, "--num-warmups", warmups, *arguments)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def tiny(serving):
    """The address of our own server."""
    with serving() as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_a_sweep_over_our_own_server(seacliff, tiny, tmp_path):
    out = tmp_path / "out.jsonl"
    run = bench(seacliff, tiny, *LOAD, "--max-concurrency", "1,3", "--output-json", out, warmups=1)
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""  # no live line where there is no terminal
    for line, concurrency in zip(lines(out), (1, 3), strict=True):
        assert (line["bench"], line["model"], line["max_concurrency"]) == ("serve", "tiny", concurrency)
        assert (line["completed"], line["failed"], line["failures"]) == (4, 0, [])
        assert (line["total_input_tokens"], line["total_output_tokens"]) == (160, 24)
        assert line["cached_tokens"] == 0  # warm-ups and runs share no prompts
        assert line["request_rate"] is None
        assert line["output_throughput"] == pytest.approx(24 / line["duration"])
        assert line["total_token_throughput"] == pytest.approx(184 / line["duration"])
        assert line["request_throughput"] == pytest.approx(4 / line["duration"])
        # Alone, each request is a step with its prompt and five decodes.
        assert 0 < line["decode_steps"] <= 20
        assert concurrency != 1 or line["decode_steps"] == 20
        assert line["median_step_ms"] < line["median_e2el_ms"]
        assert line["machine"] and line["server_version"] == line["version"]
        for name in NAMES:
            assert 0 < line[f"median_{name}_ms"] <= line[f"p90_{name}_ms"] <= line[f"p99_{name}_ms"]
        assert f"{line['output_throughput']:.1f} output tok/s" in run.stdout
        again = line["command"].split()
        assert again[:3] == ["seacliff", "bench", "serve"] and "--seed" in again
    assert len(re.findall(r"^concurrency \d: 4 requests", run.stdout, re.M)) == 2


def test_without_http_the_load_and_the_fields_are_the_same(seacliff, tiny, tmp_path):
    out = tmp_path / "out.jsonl"
    assert bench(seacliff, tiny, *LOAD, "--seed", 3, "--output-json", out).returncode == 0
    run = seacliff("bench", "throughput", "--model", "models/tiny", "--load-format", "dummy", *LOAD,
                   "--max-concurrency", 4, "--seed", 3, "--output-json", out)
    assert run.returncode == 0, run.stderr
    served, direct = lines(out)
    assert direct["bench"] == "throughput" and direct["model"] == "models/tiny"
    assert set(served) - set(direct) == {"url", "server_version"}
    assert (direct["completed"], direct["total_output_tokens"]) == (4, 24)
    assert direct["decode_steps"] > 0
    run = seacliff("bench", "throughput", "--model", "models/tiny", "--load-format", "dummy", *LOAD,
                   "--max-concurrency", 4, "--max-model-len", 45)
    assert run.returncode == 1 and "--max-model-len" in run.stderr


def test_figures_are_those_of_the_definitions(seacliff, tmp_path):
    out = tmp_path / "out.jsonl"
    with fake_openai.serving(lambda request, _: fake_openai.good(request, 0.003)) as server:
        run = bench(seacliff, server.url, "--random-input-len", 3, "--random-output-len", 5,
                    "--num-prompts", 7, "--max-concurrency", 2, "--save-detailed", "--output-json", out)
    assert run.returncode == 0, run.stderr
    line, = lines(out)
    ttfts, e2els = numpy.array(line["ttfts"]), numpy.array(line["e2els"])
    assert [len(itls) for itls in line["itls"]] == [4] * 7
    assert numpy.allclose(ttfts + [sum(itls) for itls in line["itls"]], e2els)
    values = {"ttft": ttfts, "tpot": (e2els - ttfts) / 4, "itl": numpy.concatenate(line["itls"]),
              "e2el": e2els}
    for name, seconds in values.items():
        assert line[f"mean_{name}_ms"] == pytest.approx(1e3 * seconds.mean())
        for key, percent in ("median", 50), ("p90", 90), ("p99", 99):
            assert line[f"{key}_{name}_ms"] == pytest.approx(1e3 * numpy.percentile(seconds, percent))
    assert line["decode_steps"] == 0 and "median_step_ms" not in line  # it has no such metric
    assert "machine" not in line


def test_what_is_sent(seacliff):
    with fake_openai.serving(lambda request, _: fake_openai.good(request),
                             {"vocab_size": 50}) as server:
        run = bench(seacliff, server.url, *LOAD, "--api-key", "secret", "--max-concurrency", "2,4",
                    warmups=1)
        assert run.returncode == 0, run.stderr
        assert len(server.requests) == 10
        prompts = [request["prompt"] for request in server.requests]
        assert all(len(prompt) == 40 and 0 <= min(prompt) and max(prompt) < 50 for prompt in prompts)
        assert len({tuple(prompt) for prompt in prompts}) == 10
        assert max(map(max, prompts)) > 40
        for request in server.requests:
            assert request["model"] == "fake" and request["temperature"] == 1
            assert request["ignore_eos"] is True and request["stream"] is True
            assert request["stream_options"] == {"include_usage": True}
            assert request["max_tokens"] == 6
        assert server.headers[0]["Authorization"] == "Bearer secret"
        once = sorted(prompts[1:5])  # without its warm-up
        bench(seacliff, server.url, *LOAD, "--max-concurrency", 2)
        assert sorted(request["prompt"] for request in server.requests[10:]) == once
        bench(seacliff, server.url, *LOAD, "--max-concurrency", 2, "--seed", 1)
        assert sorted(request["prompt"] for request in server.requests[14:]) != once


def test_one_token_has_no_time_per_output_token(seacliff, tmp_path):
    def reply(request, _):
        return [fake_openai.chunk("a"), fake_openai.usage(request), "[DONE]"]
    out = tmp_path / "out.jsonl"
    with fake_openai.serving(reply) as server:
        run = bench(seacliff, server.url, "--output-len", 1, "--max-concurrency", "1,2", "--output-json", out)
    assert run.returncode == 0 and "TPOT " not in run.stdout.split("concurrency requests")[0]
    for line in lines(out):
        assert line["mean_tpot_ms"] is None and line["p99_itl_ms"] is None
        assert line["median_ttft_ms"] == line["median_e2el_ms"] > 0


def test_lengths_share_no_beginning_of_prompts(seacliff):
    with fake_openai.serving(lambda request, _: fake_openai.good(request)) as server:
        for length in 8, 9:
            bench(seacliff, server.url, "--input-len", length, "--output-len", 1)
        assert server.requests[0]["prompt"] != server.requests[1]["prompt"][:8]


@pytest.mark.parametrize("concurrency", [1, 3])
def test_as_many_run_at_once_as_asked_for(seacliff, concurrency):
    together = threading.Barrier(concurrency)

    def reply(request, _):
        together.wait(30)  # breaks if fewer come
        return fake_openai.good(request, 0.001)

    with fake_openai.serving(reply) as server:
        run = bench(seacliff, server.url, "--num-prompts", 3 * concurrency, "--input-len", 2,
                    "--output-len", 2, "--max-concurrency", concurrency)
        assert run.returncode == 0, run.stdout
        assert server.most == concurrency


def test_arrivals_at_a_rate(seacliff, tmp_path):
    out = tmp_path / "out.jsonl"
    with fake_openai.serving(lambda request, _: fake_openai.good(request)) as server:
        run = bench(seacliff, server.url, *LOAD, "--request-rate", 200, "--output-json", out)
    assert run.returncode == 0, run.stderr
    line, = lines(out)
    assert (line["request_rate"], line["completed"]) == (200, 4)
    assert "--request-rate 200" in line["command"]


def failing(how):
    """A reply that goes wrong in one of the ways below."""
    def reply(request, _):
        if how == "short":
            return [*[fake_openai.chunk("a")] * 4, fake_openai.usage(request, 4), "[DONE]"]
        if how == "prompt":
            return [*[fake_openai.chunk("a")] * 6, fake_openai.usage(request, prompt=41), "[DONE]"]
        if how == "no usage":
            return [*[fake_openai.chunk("a")] * 6, "[DONE]"]
        if how == "empty":
            return [fake_openai.usage(request), "[DONE]"]
        if how == "unfinished":
            return [*[fake_openai.chunk("a")] * 6, fake_openai.usage(request)]
        if how == "in the stream":
            return [fake_openai.chunk("a"), {"error": {"message": "out of luck"}}, "[DONE]"]
        if how == "no JSON":
            return ["a" * 70_000, "[DONE]"]
        return 500, json.dumps({"error": {"message": "no\nluck"}})
    return reply


@pytest.mark.parametrize("how, said", [
    ("short", "short output: usage.completion_tokens is 4, 6 were asked for"),
    ("prompt", "usage.prompt_tokens is 41, 40 were sent"),
    ("no usage", "the stream tells no usage"),
    ("empty", "the stream has no choices"),
    ("unfinished", "the stream ended without [DONE]"),
    ("in the stream", "error within the stream: out of luck"),
    ("no JSON", "an event of the stream is no JSON object"),
    ("status", "HTTP 500: no luck"),
])
def test_failures_are_counted_and_told_once(seacliff, tmp_path, how, said):
    out = tmp_path / "out.jsonl"
    reply = failing(how)
    # The first of four is good.
    with fake_openai.serving(lambda request, index: reply(request, index) if index else
                             fake_openai.good(request)) as server:
        run = bench(seacliff, server.url, *LOAD, "--max-concurrency", 1, "--output-json", out)
    assert run.returncode == 1
    assert run.stderr == "seacliff: bench serve: 3 of 4 requests failed\n"
    assert run.stdout.count(said) == 1 and f"failed, 3x: {said}" in run.stdout
    line, = lines(out)
    assert (line["completed"], line["failed"], line["total_output_tokens"]) == (1, 3, 6)
    assert len(line["failures"]) == 1 and line["failures"][0]["count"] == 3


def test_kinds_of_failures_are_told_apart(seacliff):
    short, status = failing("short"), failing("status")
    with fake_openai.serving(lambda request, index: (short if index % 2 else status)(request, index)) as server:
        run = bench(seacliff, server.url, *LOAD, "--max-concurrency", 1)
    assert run.returncode == 1 and "4 of 4" in run.stderr
    assert "failed, 2x: HTTP 500" in run.stdout and "failed, 2x: short output" in run.stdout


def test_a_failing_warm_up_ends_it(seacliff):
    with fake_openai.serving(failing("status")) as server:
        run = bench(seacliff, server.url, *LOAD, warmups=2)
        assert len(server.requests) == 2
    assert run.returncode == 1 and run.stdout == ""
    assert "before the benchmark" in run.stderr and "HTTP 500" in run.stderr


def test_a_connection_that_breaks_off(seacliff):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def serve():  # says half an answer, to whatever is asked
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
        thread = threading.Thread(target=serve)
        thread.start()
        run = bench(seacliff, f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert run.returncode == 1
    assert "the answer broke off" in run.stderr and run.stderr.count("\n") == 1


def test_a_dead_url_is_one_line(seacliff):
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        run = seacliff("bench", "serve", "--port", port)
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith(f"seacliff: 127.0.0.1:{port}: cannot connect: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments, word", [
    (["--base-url", "https://example.org"], "https is not supported"),
    (["--base-url", "example.org"], "http://"),
    (["--base-url", "http://h:x"], "port"),
    (["--base-url", "http://no-such-host.invalid"], "cannot find the host"),
    (["--endpoint", "/v1/chat/completions"], "--endpoint"),
    (["--model", "other"], "--model"),
    (["--input-len", 90], "server's context of 100"),
    (["--input-len", 0], "--input-len"),
    (["--output-len", 0], "--output-len"),
    (["--max-concurrency", "1,,2"], "--max-concurrency"),
    (["--max-concurrency", "four"], "--max-concurrency"),
])
def test_wrong_usage_is_one_line(seacliff, arguments, word):
    with fake_openai.serving(lambda request, _: fake_openai.good(request),
                             {"max_model_len": 100}) as server:
        given = {"--base-url": server.url, "--input-len": 40, "--output-len": 11}
        given[arguments[0]] = arguments[1]
        run = seacliff("bench", "serve", *(word for item in given.items() for word in item))
        assert server.requests == []
    assert run.returncode == 1 and run.stdout == ""
    assert run.stderr.startswith("seacliff: ") and run.stderr.count("\n") == 1
    assert word in run.stderr


def test_a_live_line_on_a_terminal(binary, root):
    with fake_openai.serving(lambda request, _: fake_openai.good(request, 0.05)) as server:
        terminal = Terminal([binary, "bench", "serve", "--base-url", server.url, "--input-len", 4,
                             "--output-len", 10, "--num-prompts", 2, "--max-concurrency", 1], root)
        try:
            terminal.wait_for(b"concurrency 1: 0 / 2 requests, 1 running")
            terminal.wait_for(b"concurrency 1: 1 / 2 requests, 1 running")
            terminal.wait_for(b"output tok/s")
            assert terminal.end() == 0
        finally:
            terminal.close()
