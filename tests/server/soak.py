#!/usr/bin/env python3
"""A soak test of `seacliff serve`: streaming clients beside others that disturb.

    python3 tests/server/soak.py --binary build/cpu/seacliff --seconds 600 --clients 200

Rounds without and with disturbers follow each other, with as many clients in both. It fails if
- a greedy answer is not the one that its prompt has alone (--ties: on a GPU, where how a prompt is
  cut into chunks may change the last bits, it may differ from where two tokens were that close);
- the time between tokens of those who behave is more than 3 times as long beside disturbers;
- anything is left behind: pages, descriptors, threads, memory;
- the server logs an error of its own, or does not end with status 0.
Needs nothing but Python.
"""

import argparse
import asyncio
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STRETCH = 3.0
MAX_TOKENS = (8, 24, 64, 128)
SENTENCE = "The quick brown fox jumps over the lazy dog and runs to the river. "


def prompts():
    """Short and long ones, and some that begin alike."""
    shared = SENTENCE * 12
    made = ["Once upon a time", "The fox", "1 2 3 4 5 6", "x", "Why is the sky"]
    made += [f"{shared} It was day {i}." for i in range(6)]
    made += [f"Story {i}. " + SENTENCE * (4 * i) for i in range(1, 9)]
    return made


class Refused(Exception):
    """An answer with an HTTP error."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body[:300]!r}")
        self.status = status


class Connection:
    """One request on a connection of its own, read as it comes."""

    def __init__(self, port, buffer=None):
        self.port, self.buffer = port, buffer

    async def __aenter__(self):
        raw = socket.socket()
        raw.setblocking(False)
        if self.buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.buffer)
        try:
            await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
            self.reader, self.writer = await asyncio.open_connection(sock=raw)
        except BaseException:
            raw.close()
            raise
        return self

    async def __aexit__(self, *_):
        self.writer.transport.abort()  # no farewell: also what a client that dies does

    def post(self, body, path="/v1/completions"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        self.writer.write(head.encode() + data)

    async def head(self):
        """The status, and the headers in lower case."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.split(":", 1) for line in lines[1:] if line)
        return int(lines[0].split()[1]), {name.lower(): value.strip() for name, value in pairs}

    async def reply(self):
        status, headers = await self.head()
        return status, await self.reader.readexactly(int(headers.get("content-length", 0)))

    async def frames(self):
        """The data of each server-sent event."""
        status, headers = await self.head()
        if status != 200:
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            raise Refused(status, body)
        text = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            text += (await self.reader.readexactly(size + 2))[:-2]
            *whole, text = text.split(b"\n\n")
            for frame in whole:
                if frame.startswith(b"data: "):
                    yield frame[6:]


def request(prompt, max_tokens, **fields):
    body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    return body | {"stream": True, "return_token_ids": True} | fields


async def tokens_of(connection, times=None):
    """The ids of a stream, and the gaps between its tokens if `times` is given."""
    ids, last = [], None
    async for frame in connection.frames():
        if frame == b"[DONE]":
            return ids
        event = json.loads(frame)
        if "error" in event:
            raise Refused(0, frame)
        new = [token for choice in event["choices"] for token in choice.get("token_ids") or []]
        now = time.monotonic()
        if new and last is not None and times is not None:
            times += [(now - last) / len(new)] * len(new)
        if new:
            last = now
        ids += new
    raise AssertionError("a stream ended without [DONE]")


class Load:
    """The clients of a round."""

    def __init__(self, port, expected, ties):
        self.port, self.expected, self.ties = port, expected, ties
        self.answers = self.tied = self.disturbances = 0
        self.wrong = []

    async def behave(self, seed, end, times):
        draw = random.Random(seed)
        while time.monotonic() < end:
            key = draw.choice(list(self.expected))
            async with Connection(self.port) as connection:
                connection.post(request(*key))
                ids = await tokens_of(connection, times)
            self.answers += 1
            self.compare(key, ids)

    def compare(self, key, ids):
        right, margins = self.expected[key]
        if ids == right:
            return
        at = next((i for i, pair in enumerate(zip(ids, right)) if pair[0] != pair[1]), None)
        if at is not None and len(ids) == len(right) and margins[at] < self.ties:
            self.tied += 1
            return
        self.wrong.append(f"{key[0][:40]!r}, {key[1]} tokens: token {at}: {ids} for {right}")

    async def disturb(self, seed, end):
        draw = random.Random(seed)
        kinds = [self.leave, self.leave_early, self.send_nonsense, self.read_slowly, self.be_odd]
        while time.monotonic() < end:
            await draw.choice(kinds)(draw, end)
            self.disturbances += 1

    async def leave(self, draw, _):
        async with Connection(self.port) as connection:
            connection.post(request(draw.choice(prompts()), 1000, n=draw.choice((1, 1, 3))))
            left = draw.randrange(20)
            async for _ in connection.frames():
                left -= 1
                if left < 0:
                    return

    async def leave_early(self, draw, _):
        async with Connection(self.port) as connection:
            connection.post(request(draw.choice(prompts()), 1000, stream=draw.random() < 0.5))
            await asyncio.sleep(draw.random() * 0.2)

    async def send_nonsense(self, draw, _):
        bad = [
            (b"{", 400),
            (b"[1, 2]", 400),
            ({"prompt": "a", "max_tokens": -1}, 400),
            ({"prompt": "a", "temperature": "hot"}, 400),
            ({"prompt": SENTENCE * 2000}, 400),
            ({"prompt": [10**9]}, 400),
            ({"prompt": "a", "timeout": 0}, 400),
            ({"messages": []}, 400),
        ]
        body, wanted = draw.choice(bad)
        async with Connection(self.port) as connection:
            connection.post(body)
            status, text = await connection.reply()
            if status != wanted:
                self.wrong.append(f"{body} got {status}: {text[:200]}")
        async with Connection(self.port) as connection:
            half = [b"\x00\xff\x16\x03", b"POST /v1/completions HTT", b"GET / HTTP/1.1\r\nA: b\r\n"]
            connection.writer.write(draw.choice(half))
            await asyncio.sleep(draw.random() * 0.1)

    async def read_slowly(self, draw, end):
        async with Connection(self.port, buffer=4096) as connection:
            connection.post(request(draw.choice(prompts()), 600, logprobs=5))
            until = min(end, time.monotonic() + draw.uniform(1, 8))
            while time.monotonic() < until and await connection.reader.read(200):
                await asyncio.sleep(0.05)

    async def be_odd(self, draw, _):
        """Valid, but of every kind: sampled, with penalties, salts, priorities, deadlines."""
        fields = {"temperature": 1.5, "top_p": 0.9, "frequency_penalty": 0.5, "seed": 7}
        fields |= {"cache_salt": str(draw.randrange(4)), "priority": draw.randrange(-2, 3)}
        fields |= {"timeout": draw.choice((0.01, 0.3, 60)), "stream": draw.random() < 0.5}
        body = request(draw.choice(prompts()), 100, n=draw.choice((1, 4)), **fields)
        async with Connection(self.port) as connection:
            connection.post(body)
            try:
                if body["stream"]:
                    await tokens_of(connection)
                    return
                status, text = await connection.reply()
                if status not in (200, 504):
                    self.wrong.append(f"{fields} got {status}: {text[:200]}")
            except Refused as refused:
                if b"timeout" not in str(refused).encode():
                    self.wrong.append(f"{fields}: {refused}")

    async def round(self, clients, seconds, disturbers):
        """Runs the clients; the gaps between tokens of those who behave."""
        end, times = time.monotonic() + seconds, []
        seeds = [random.random() for _ in range(clients)]
        jobs = [self.behave(seed, end, times) for seed in seeds[disturbers:]]
        jobs += [self.disturb(seed, end) for seed in seeds[:disturbers]]
        await asyncio.gather(*jobs)
        return sorted(times)


class Process:
    """The server, and what it holds."""

    def __init__(self, binary, model, log, extra):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [binary, "serve", model, "--port", str(self.port), *extra]
        self.log = log
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as reply:
            return reply.read().decode()

    def wait_ready(self, seconds=300):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError("the server ended at its start:\n" + self.text())
            try:
                return self.get("/health")
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server was not ready:\n" + self.text())

    def metrics(self):
        values = {}
        for line in self.get("/metrics").splitlines():
            if line.startswith("seacliff:"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{")[0].removeprefix("seacliff:")
                values[name] = values.get(name, 0) + float(value)
        return values

    def wait_idle(self, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.metrics()
            if found["num_requests_running"] + found["num_requests_waiting"] == 0:
                return found
            time.sleep(0.1)
        raise AssertionError("requests are left: " + json.dumps(found))

    def holds(self):
        """Descriptors, threads and megabytes, once the connections of before are closed."""
        time.sleep(1)
        folder = pathlib.Path(f"/proc/{self.process.pid}")
        status = dict(
            line.split(":", 1) for line in (folder / "status").read_text().splitlines()
        )
        return {
            "descriptors": len(list((folder / "fd").iterdir())),
            "threads": int(status["Threads"]),
            "megabytes": int(status["VmRSS"].split()[0]) / 1024,
        }

    def text(self):
        self.log.flush()
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


async def answers_alone(port, longest):
    """For each prompt and length the ids, and how far the best token was from the next."""
    expected = {}
    for i, prompt in enumerate(prompts()):
        key = (prompt, min(longest, MAX_TOKENS[i % len(MAX_TOKENS)]))
        async with Connection(port) as connection:
            connection.post(request(*key, stream=False, logprobs=2))
            status, text = await connection.reply()
            if status != 200:
                raise Refused(status, text)
        choice = json.loads(text)["choices"][0]
        tops = [sorted(top.values(), reverse=True) for top in choice["logprobs"]["top_logprobs"]]
        margins = [top[0] - top[1] if len(top) > 1 else 0 for top in tops]
        expected[key] = choice["token_ids"], margins
    return expected


def at(times, part):
    return times[min(len(times) - 1, int(part * len(times)))]


def is_sanitized(binary):
    data = pathlib.Path(binary).read_bytes()
    return b"libasan.so" in data or b"libtsan.so" in data


def soak(binary, model, seconds, clients, ties=0.0, server_args=()):
    """Runs it; the faults found, one a line."""
    faults = []
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        server = Process(binary, model, log, server_args)
        try:
            faults = asyncio.run(rounds(server, seconds, clients, ties, is_sanitized(binary)))
        finally:
            status = server.stop()
            text = server.text()
            bad = [line for line in text.splitlines() if " E " in line or "Sanitizer" in line]
            if bad or status != 0:
                print(text, file=sys.stderr)
        faults += [f"the log says: {line}" for line in bad[:5]]
        if status != 0:
            faults.append(f"the server ended with status {status}")
    return faults


async def rounds(server, seconds, clients, ties, sanitized):
    server.wait_ready()
    # With a sanitizer all takes ten times as long, and freed memory is kept for a while.
    alone = await answers_alone(server.port, 16 if sanitized else max(MAX_TOKENS))
    load = Load(server.port, alone, ties)
    # Every size of step and every buffer has been there once before it is measured.
    await load.round(clients, min(10, seconds / 6), clients // 4)
    server.wait_idle()
    before = server.holds()
    pairs = max(1, min(5, int(seconds / 20)))
    part = seconds / (2 * pairs)
    calm, disturbed = [], []
    for i in range(pairs):
        calm += await load.round(clients, part, 0)
        disturbed += await load.round(clients, part, clients // 4)
        now = server.wait_idle()
        print(f"round {i + 1}: {load.answers} answers, {load.disturbances} disturbances,"
              f" {now['engine_steps_total']:.0f} steps", flush=True)
    after, metrics = server.holds(), server.wait_idle()
    calm.sort(), disturbed.sort()
    faults = list(load.wrong[:5])
    if load.wrong:
        faults.append(f"{len(load.wrong)} wrong answers of {load.answers}")
    for name, share in (("median", 0.5), ("99th percentile", 0.99)):
        alone, beside = at(calm, share), at(disturbed, share)
        line = f"time between tokens, {name}: {alone * 1e3:.2f} ms, disturbed {beside * 1e3:.2f} ms"
        print(line)
        if beside > STRETCH * alone:
            faults.append(line)
    free, cached, pages = (
        metrics[name] for name in ("kv_cache_free_pages", "prefix_cache_pages", "kv_cache_pages")
    )
    host = 1e6 * metrics["engine_host_seconds_total"] / metrics["engine_steps_total"]
    print(f"the host between steps: {host:.1f} us")
    print(f"pages: {free:.0f} free + {cached:.0f} cached of {pages:.0f}; {load.tied} ties; "
          f"preemptions {metrics['num_preemptions_total']:.0f}; before {before}; after {after}")
    if free + cached != pages:
        faults.append(f"pages: {free} free + {cached} cached are not {pages}")
    for what in ("descriptors", "threads"):
        if after[what] > before[what]:
            faults.append(f"{what}: {before[what]} before, {after[what]} after")
    if not sanitized and after["megabytes"] > 1.1 * before["megabytes"] + 16:
        faults.append(f"memory: {before['megabytes']} MB before, {after['megabytes']} MB after")
    if load.answers < clients or load.disturbances == 0:
        faults.append(f"too little happened: {load.answers} answers")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", default=str(ROOT / "build/cpu/seacliff"))
    parser.add_argument("--model", default=str(ROOT / "models/tiny"))
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--ties", type=float, default=0, help="of logprobs, where answers may part")
    parser.add_argument("server_args", nargs="*", help="after --: flags of seacliff serve")
    args = parser.parse_args()
    faults = soak(
        os.path.abspath(args.binary), args.model, args.seconds, args.clients, args.ties,
        args.server_args,
    )
    for fault in faults:
        print("FAULT:", fault)
    print("soak:", "failed" if faults else "passed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
