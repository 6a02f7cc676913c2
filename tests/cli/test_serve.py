"""seacliff serve: starting, being told to stop, and refusing to start."""

import http.client
import json
import signal
import socket

import pytest


@pytest.fixture
def server(serving):
    with serving() as (process, port):
        yield process, port


def test_serves_until_a_signal(server):
    process, port = server
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v1/models")
    models = json.loads(connection.getresponse().read())
    assert models["data"][0]["id"] == "tiny"
    connection.request("POST", "/v1/completions",
                       json.dumps({"model": "tiny", "prompt": "Hello", "max_tokens": 3}),
                       {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200
    assert json.loads(response.read())["usage"]["completion_tokens"] <= 3
    connection.close()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_a_taken_port_is_said(seacliff, dummy):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = seacliff("serve", *dummy, "--port", port)
    assert run.returncode == 1
    last = run.stderr.strip().split("\n")[-1]
    assert last.startswith("seacliff: ") and str(port) in last
