#!/usr/bin/env python3
"""`make demo`: starts the server, streams one answer into the terminal, prints the curl line to try
next, and serves until Ctrl-C. Python's standard library only."""

import argparse
import http.client
import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
HOST = "127.0.0.1"
QUESTION = "Tell me a short story about a lighthouse."
DIM, PLAIN = ("\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "")


def check_port(port):
    """Exits with a clear word if something listens on the port already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            sys.exit(f"make demo: port {port} of {HOST} cannot be used ({error.strerror}); "
                     f"choose another: make demo PORT={port + 1}")


def get(port, path):
    """(status, body) of a GET; status 0 while nothing listens."""
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def wait_until_ready(server, port):
    while server.poll() is None:
        if get(port, "/health")[0] == 200:
            return
        time.sleep(0.05)
    sys.exit("make demo: the server did not start (its own words are above)")


def chunks(port, request):
    """The JSON events of a streamed reply."""
    connection = http.client.HTTPConnection(HOST, port, timeout=300)
    connection.request("POST", "/v1/chat/completions", json.dumps(request),
                       {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"make demo: the server answered {response.status}: {response.read().decode()}")
    for line in response:
        data = line.decode().strip().removeprefix("data: ")
        if data == "[DONE]":
            break
        if data.startswith("{"):
            yield json.loads(data)
    connection.close()


def stream_answer(port, model):
    request = {"model": model, "stream": True, "temperature": 0, "max_tokens": 300,
               "stream_options": {"include_usage": True},
               "messages": [{"role": "user", "content": QUESTION}]}
    print(f"\n{DIM}user:{PLAIN} {QUESTION}\n{DIM}{model}:{PLAIN} ", end="", flush=True)
    begin = time.monotonic()
    first, usage, reasoning = None, {}, False
    for event in chunks(port, request):
        usage = event.get("usage") or usage
        for choice in event.get("choices", []):
            delta = choice.get("delta", {})
            thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
            text = delta.get("content") or ""
            if (thought or text) and first is None:
                first = time.monotonic() - begin
            if thought:
                reasoning = True
                print(f"{DIM}{thought}{PLAIN}", end="", flush=True)
            if text:
                print(("\n\n" if reasoning else "") + text, end="", flush=True)
                reasoning = False
    seconds = time.monotonic() - begin
    if first is None:
        sys.exit("make demo: the answer was empty")
    tokens = usage.get("completion_tokens", 0)
    rate = f", {(tokens - 1) / (seconds - first):.1f} tok/s" if tokens > 1 else ""
    print(f"\n\n{DIM}[{tokens} tokens, first after {first:.2f} s{rate}]{PLAIN}")


def print_next_step(port, model):
    body = json.dumps({"model": model, "stream": True,
                       "messages": [{"role": "user", "content": "Hello!"}]})
    print(f"\nTry next, from another terminal:\n\n"
          f"  curl -N http://{HOST}:{port}/v1/chat/completions "
          f"-H 'Content-Type: application/json' \\\n    -d '{body}'\n", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--model", default="models/tiny")
    parser.add_argument("--binary", default="build/cpu/seacliff")
    parser.add_argument("--once", action="store_true", help="stop after the answer")
    parser.add_argument("--check-port", action="store_true", help="only see whether it is free")
    options = parser.parse_args()
    check_port(options.port)
    if options.check_port:
        return 0

    # Also where the shell started us with SIGINT ignored, as it does in the background.
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    # Its own session: Ctrl-C reaches the server once, from here.
    command = [options.binary, "serve", options.model, "--host", HOST, "--port", str(options.port)]
    print("$ " + " ".join(command), flush=True)
    server = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        wait_until_ready(server, options.port)
        model = json.loads(get(options.port, "/v1/models")[1])["data"][0]["id"]
        stream_answer(options.port, model)
        print_next_step(options.port, model)
        if not options.once:
            print("Serving until Ctrl-C.", flush=True)
            return server.wait()
    except KeyboardInterrupt:
        print()
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=10)
            except subprocess.TimeoutExpired:
                server.kill()
    return 0


if __name__ == "__main__":
    sys.exit(main())
