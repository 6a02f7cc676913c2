"""An OpenAI-compatible server whose replies are scripted, for tests of `seacliff bench serve`."""

import contextlib
import http.server
import json
import threading
import time


def chunk(text):
    return {"choices": [{"index": 0, "text": text, "finish_reason": None}]}


def usage(request, completion=None, prompt=None):
    return {"choices": [], "usage": {
        "prompt_tokens": len(request["prompt"]) if prompt is None else prompt,
        "completion_tokens": request["max_tokens"] if completion is None else completion}}


def good(request, pause=0.0):
    """The events of a complete reply, a chunk for each token."""
    for _ in range(request["max_tokens"]):
        yield chunk("a")
        time.sleep(pause)
    yield usage(request)
    yield "[DONE]"


class FakeServer:
    """`reply(request, index)` gives a reply's events, or an (HTTP status, body) instead."""

    def __init__(self, reply, model=None):
        self.requests, self.headers, self.most, self._now = [], [], 0, 0
        self._lock = threading.Lock()
        fake, listed = self, {"id": "fake", "object": "model", **(model or {})}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body):
                data = body.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self):
                if self.path == "/v1/models":
                    return self.answer(200, json.dumps({"object": "list", "data": [listed]}))
                return self.answer(404, "nothing here")

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake._lock:
                    index = len(fake.requests)
                    fake.requests.append(request)
                    fake.headers.append(dict(self.headers))
                    fake._now += 1
                    fake.most = max(fake.most, fake._now)
                try:
                    events = reply(request, index)
                    if isinstance(events, tuple):
                        return self.answer(*events)
                    self.send_response(200)
                    self.send_header("Content-Type", "text/event-stream")
                    self.send_header("Connection", "close")
                    self.end_headers()
                    for event in events:
                        text = event if isinstance(event, str) else json.dumps(event)
                        self.wfile.write(f"data: {text}\r\n\r\n".encode())
                finally:
                    with fake._lock:
                        fake._now -= 1
                self.close_connection = True

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving(reply, model=None):
    server = FakeServer(reply, model)
    try:
        yield server
    finally:
        server.close()
