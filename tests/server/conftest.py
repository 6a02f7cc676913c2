"""Starts real `seacliff serve` processes for the tests of this folder.

SEACLIFF_BINARY is the program (default: build/cpu/seacliff), SEACLIFF_MODEL the model's directory
(default: models/tiny). Nothing here depends on what the model has learnt. Beside the program lies
scripted_server, the same server over an engine that says what a request's script spells.
"""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time

import httpx
import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("SEACLIFF_BINARY", str(ROOT / "build/cpu/seacliff"))
MODEL = os.environ.get("SEACLIFF_MODEL", str(ROOT / "models/tiny"))
# Sanitizers take ten times as long.
SANITIZED = any(name in BINARY for name in ("asan", "tsan"))
NAME = "tiny"
START_SECONDS = 180


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One process, ready when the constructor returns (unless told not to wait)."""

    def __init__(self, log_path, *args, wait=True, **options):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log_path = log_path
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(
                self.command(*args, **options), stdout=log, stderr=subprocess.STDOUT
            )
        if wait:
            self.wait_ready()

    def command(self, *args):
        command = [BINARY, "serve", MODEL, "--host", "127.0.0.1", "--port", str(self.port)]
        return [*command, "--served-model-name", NAME, *args]

    def wait_ready(self):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"seacliff ended at its start:\n{self.log()}")
            try:
                if httpx.get(self.url + "/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise RuntimeError(f"seacliff was not ready in {START_SECONDS} s:\n{self.log()}")

    def log(self):
        return pathlib.Path(self.log_path).read_text(errors="replace")

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry these labels."""
        total, found = 0.0, False
        for line in httpx.get(self.url + "/metrics", timeout=10).text.splitlines():
            if not line.startswith(name + "{"):
                continue
            if all(f'{key}="{value}"' in line for key, value in labels.items()):
                total, found = total + float(line.rsplit(" ", 1)[1]), True
        assert found, f"no metric {name} {labels}"
        return total

    def wait_running(self, count, seconds=20):
        deadline = time.monotonic() + seconds
        while self.metric("seacliff:num_requests_running") != count:
            assert time.monotonic() < deadline, f"{count} requests never ran at once"
            time.sleep(0.005)

    def wait_idle(self, seconds=20):
        """Waits until no request runs or waits; the metrics must show it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            running = self.metric("seacliff:num_requests_running")
            if running + self.metric("seacliff:num_requests_waiting") == 0:
                return
            time.sleep(0.02)
        raise AssertionError("requests are still running")

    def wait_idle_prefill(self, before, seconds=20):
        """Waits until more than `before` tokens were computed in idle time, and no more come."""
        deadline = time.monotonic() + seconds
        last, since = before, time.monotonic()
        while last == before or time.monotonic() - since < 0.5:
            assert time.monotonic() < deadline, "nothing was computed in idle time"
            now = self.metric("seacliff:idle_prefill_tokens_total")
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.02)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def client(self, api_key="none"):
        return openai.OpenAI(
            base_url=self.url + "/v1", api_key=api_key, max_retries=0, timeout=120
        )


class ScriptedServer(Server):
    """Answers a request with what its last script spells (scripted_server.cc)."""

    def command(self, profile="preview", keep_alive_ms=5000):
        program = pathlib.Path(BINARY).parent / "scripted_server"
        return [program, MODEL, str(self.port), profile, str(keep_alive_ms)]

    @staticmethod
    def script(*say, **how):
        """The text of a message that makes the server say this."""
        return f"@script{json.dumps(how | {'say': say})}@end"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server") / "log")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def scripted(tmp_path_factory):
    running = ScriptedServer(tmp_path_factory.mktemp("scripted") / "log")
    yield running
    running.stop()


@pytest.fixture
def start_scripted(tmp_path):
    """A function that starts a further scripted server."""
    started = []

    def start(**options):
        started.append(ScriptedServer(tmp_path / f"scripted{len(started)}", **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def client(server):
    with server.client() as made:
        yield made


@pytest.fixture
def start_server(tmp_path):
    """A function that starts a further server with extra arguments."""
    started = []

    def start(*args, wait=True):
        started.append(Server(tmp_path / f"log{len(started)}", *args, wait=wait))
        return started[-1]

    yield start
    for one in started:
        one.stop()
