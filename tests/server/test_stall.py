"""An engine that hangs (its thread is held by a debugger's means), and drains that take too long."""

import ctypes
import json
import os
import pathlib
import signal
import time

import httpx

from test_running import long_body

SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
ALL_THREADS = 0x40000000


class HeldThread:
    """Holds the thread of this name, of a process that we started, until `release`."""

    def __init__(self, pid, name):
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        self.thread = next(
            int(task.name) for task in tasks if (task / "comm").read_text().strip() == name
        )
        self.libc = ctypes.CDLL(None, use_errno=True)
        for action in (SEIZE, INTERRUPT):
            self.trace(action)
        os.waitpid(self.thread, ALL_THREADS)

    def trace(self, action):
        done = self.libc.ptrace(action, ctypes.c_long(self.thread), None, None)
        assert done == 0, os.strerror(ctypes.get_errno())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.thread is not None:
            self.libc.ptrace(DETACH, ctypes.c_long(self.thread), None, None)

    def release(self):
        self.trace(DETACH)
        self.thread = None

    def wait_end(self):
        """A held thread's end must be taken note of before its process can end."""
        os.waitpid(self.thread, ALL_THREADS)
        self.thread = None


def hold_engine(server):
    """Not where it holds what the server's thread needs too: a device that hangs does not either."""
    while True:
        held = HeldThread(server.process.pid, "engine")
        try:
            httpx.get(server.url + "/health", timeout=0.5)
            return held
        except httpx.ReadTimeout:
            held.release()
            time.sleep(0.01)


def wait_health(server, status, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        reply = httpx.get(server.url + "/health", timeout=5)
        if reply.status_code == status:
            return reply.json()
        time.sleep(0.05)
    raise AssertionError(f"/health never became {status}")


def test_an_engine_that_hangs_ends_the_server(start_server):
    server = start_server("--stall-timeout", "1")
    body = long_body(server, stream=True)
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        next(lines)
        with hold_engine(server) as held:
            health = wait_health(server, 503)
            assert health["status"] == "stalled"
            assert "1 requests" in health["reason"]
            data = [line[6:] for line in lines if line.startswith("data: ")]
            assert json.loads(data[-2])["error"]["code"] == "stalled"
            held.wait_end()
    assert server.process.wait(20) == 4
    log = server.log()
    assert "tokens from position" in log
    for name in ("engine", "server", "watchdog"):
        assert f'"{name}"' in log


def test_an_engine_that_goes_on_is_healthy_again(start_server):
    server = start_server("--stall-timeout", "1", "--on-stall", "report")
    body = long_body(server, stream=True)
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        next(lines)
        with hold_engine(server) as held:
            wait_health(server, 503)
            held.release()
        wait_health(server, 200)
        *_, last = (line for line in lines if line)
        assert last == "data: [DONE]"
    assert server.metric("seacliff:engine_stalls_total") == 1


def test_deep_health(start_server):
    server = start_server("--stall-timeout", "1", "--on-stall", "report")
    before = server.metric("seacliff:engine_steps_total")
    assert httpx.get(server.url + "/health", params={"deep": 1}).status_code == 200
    assert server.metric("seacliff:engine_steps_total") > before
    with hold_engine(server):
        assert httpx.get(server.url + "/health", timeout=30).status_code == 200  # nobody has asked
        assert httpx.get(server.url + "/health?deep=1", timeout=30).status_code == 503
    wait_health(server, 200)


def test_a_drain_ends_at_its_timeout(start_server):
    server = start_server("--drain-timeout", "0.5", "--max-num-batched-tokens", "16")
    body = long_body(server, stream=True, n=8)
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as reply:
        lines = reply.iter_lines()
        next(lines)
        server.process.send_signal(signal.SIGTERM)
        data = [line[6:] for line in lines if line.startswith("data: ")]
    assert json.loads(data[-2])["error"]["code"] == "cancelled"
    assert server.process.wait(20) == 0
