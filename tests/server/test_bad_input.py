"""Malformed requests (bad_input.py) beside running ones, and thousands of connections that say nothing."""

import concurrent.futures
import itertools
import json
import pathlib
import resource
import socket
import struct
import threading
import time

import bad_input
import httpx
import pytest
from bad_input import BASES
from conftest import BINARY, Server
from soak import is_sanitized

SEED = 9
REPLY_SECONDS = 60  # more is a hang
PROMPTS = ("Once upon a time", "The fox", "1 2 3 4 5 6", "Why is the sky")


def stream(server, prompt):
    """The text of a long greedy stream, and how it finished."""
    body = {"prompt": prompt, "max_tokens": 100, "temperature": 0, "ignore_eos": True, "stream": True}
    text, finish = "", None
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=120) as reply:
        lines = [line[6:] for line in reply.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "[DONE]"
    for choice in (choice for line in lines for choice in json.loads(line)["choices"]):
        text += choice["text"]
        finish = choice["finish_reason"] or finish
    return text, finish


class Company:
    """Clients that stream the same greedy texts again and again; `expected` is what they said alone."""

    def __init__(self, server):
        self.server = server
        self.expected = {prompt: stream(server, prompt) for prompt in PROMPTS}
        assert {finish for _, finish in self.expected.values()} == {"length"}
        self.end = threading.Event()
        self.pool = concurrent.futures.ThreadPoolExecutor(len(PROMPTS))

    def talk(self, prompt):
        said = []
        while not self.end.is_set():
            said.append(stream(self.server, prompt))
        return said

    def __enter__(self):
        self.jobs = {prompt: self.pool.submit(self.talk, prompt) for prompt in PROMPTS}
        return self

    def __exit__(self, *_):
        self.end.set()
        self.pool.shutdown()

    def check(self):
        self.end.set()
        for prompt, job in self.jobs.items():
            said = job.result()
            assert said and set(said) == {self.expected[prompt]}


def read_reply(file):
    """The status, the headers and the body."""
    lines = []
    while (line := file.readline()) != b"\r\n":
        if not line.endswith(b"\r\n"):
            raise EOFError(f"closed after {lines + [line]}")
        lines.append(line)
    headers = dict(line.decode().strip().lower().split(": ", 1) for line in lines[1:])
    length = int(headers["content-length"])
    body = file.read(length)
    if len(body) != length:
        raise EOFError(f"closed within the body: {body[:200]}")
    return int(lines[0].split()[1]), headers, body


def check_error(status, headers, body, bad):
    """What is wrong with an error's reply, or None."""
    try:
        error = json.loads(body.decode())["error"]
        message, param = error["message"], error["param"]
    except (ValueError, KeyError, TypeError) as fault:
        return f"no error body: {body[:200]!r} ({fault})"
    if set(error) != {"message", "type", "param", "code"}:
        return f"not OpenAI's form: {error}"
    if error["type"] != "invalid_request_error" or headers["content-type"] != "application/json":
        return f"type {error['type']}, {headers}"
    if bad.param and not (param or "").startswith(bad.param):
        return f"param {param!r}: {message}"
    if param and param not in message and status != 404:
        return f"the message does not name {param}: {message}"
    if bad.param == "" and param is not None:
        return f"param {param!r} of {message!r}"
    if not message or bad.says not in message:
        return f"message: {message}"
    return None


def deliver(port, bad):
    """What is wrong with how the server takes this, or None."""
    with socket.create_connection(("127.0.0.1", port), timeout=REPLY_SECONDS) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in bad.pieces:
                raw.sendall(piece)
                if bad.pause:
                    time.sleep(bad.pause)
            if bad.ends == "half":
                raw.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before all of it was there
        if bad.ends == "abort":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return None
        file = raw.makefile("rb")
        for i, status in enumerate(bad.status):
            try:
                got, headers, body = read_reply(file)
            except TimeoutError:
                return f"reply {i}: none in {REPLY_SECONDS} s"
            except (OSError, EOFError) as fault:
                return None if bad.may_close else f"reply {i}: {fault!r}"
            if got != status:
                return f"reply {i}: {got}, not {status}: {body[:200]!r}"
            if status >= 400 and i == len(bad.status) - 1:
                return check_error(got, headers, body, bad)
        return None if file.read(1) == b"" else "an answer where none was due"


def test_what_is_spoilt_was_valid(server):
    for name, (path, body) in BASES.items():
        reply = httpx.post(server.url + path, json=body, timeout=60)
        assert reply.status_code == 200, (name, reply.text)


def test_malformed_requests(start_server):
    server = start_server()
    requests = bad_input.requests(SEED)
    assert len(requests) > 500
    with Company(server) as company:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = list(pool.map(lambda bad: deliver(server.port, bad), requests))
        company.check()
    faults = [f"{bad.name}: {fault}" for bad, fault in zip(requests, answers) if fault]
    assert not faults, "\n".join(faults)
    server.wait_idle()
    assert server.process.poll() is None
    assert " E " not in server.log()


class Process:
    """What the system says about a process."""

    def __init__(self, pid):
        self.folder = pathlib.Path(f"/proc/{pid}")

    def memory(self):
        status = (self.folder / "status").read_text()
        return 1024 * int(status.split("VmRSS:")[1].split()[0])

    def files(self):
        return sum(1 for _ in (self.folder / "fd").iterdir())

    def wait_files(self, enough, seconds=30):
        deadline = time.monotonic() + seconds
        while not enough(self.files()):
            assert time.monotonic() < deadline, f"{self.files()} files are open"
            time.sleep(0.02)


@pytest.fixture
def files():
    """Sets the soft limit of open files, of this process and those that it starts; back at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(count):
        if before[1] != resource.RLIM_INFINITY and before[1] < count:
            pytest.skip(f"needs {count} open files; the hard limit is {before[1]}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


IDLE, IDLE_BYTES = 10_000, 100e6
HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/js"
# What a client sends before it says nothing more, and what is read before: none, half a header, half
# a body, and a whole request, small and large.
SILENCES = [
    (b"", 0),
    (HALF, 0),
    (bad_input.post("/v1/completions", b"x" * 5000)[:-1000], 0),
    (b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", 1),
    (bad_input.post("/nothing", b"x" * 60_000), 1),
]


def test_ten_thousand_idle_connections(start_server, files):
    files(IDLE + 500)
    files(1024)  # what the server starts with
    server = start_server()
    files(IDLE + 500)
    process = Process(server.process.pid)
    company = Company(server)
    before, files_before = process.memory(), process.files()
    idle = []
    try:
        with company:
            for text, replies in itertools.islice(itertools.cycle(SILENCES), IDLE):
                idle.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
                idle[-1].sendall(text)
                if replies:
                    assert idle[-1].recv(4096).startswith(b"HTTP/1.1 ")
            process.wait_files(lambda count: count >= files_before + IDLE)
            company.check()
        assert stream(server, PROMPTS[0]) == company.expected[PROMPTS[0]]
        if not is_sanitized(BINARY):
            assert process.memory() - before < IDLE_BYTES
    finally:
        for one in idle:
            one.close()
    process.wait_files(lambda count: count <= files_before + len(PROMPTS) + 2)
    assert " E " not in server.log()


class FewFiles(Server):
    def command(self, *args):
        return ["sh", "-c", 'ulimit -n 600; exec "$@"', "sh", *super().command(*args)]


def test_fewer_files_than_connections(tmp_path, files):
    """The connections that do not fit wait until others end."""
    files(1000)
    server = FewFiles(tmp_path / "log")
    try:
        assert "at most 344 connections" in server.log()
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(400)]
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.url + "/health", timeout=0.5)
        for one in idle[:100]:
            one.close()
        assert httpx.get(server.url + "/health", timeout=60).status_code == 200
        for one in idle:
            one.close()
        assert " E " not in server.log()
    finally:
        server.stop()
