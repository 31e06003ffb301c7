"""A chat server on this machine that answers as it is told, and fails as it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], dict[str, Any]]
"""From the body of a request to that of a reply; ``{"status": 400, ...}`` is an error with this status."""


def completion(text: str | None, model: str = "chat", **choice: Any) -> dict[str, Any]:
    """The body of a reply."""
    message = {"role": "assistant", "content": text} | choice.pop("message", {})
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"} | choice],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }


def refusal(status: int, words: str, code: str | None = None) -> dict[str, Any]:
    """The body of an error."""
    return {"status": status, "error": {"message": words, "type": "error", "code": code}}


def repeating(body: dict[str, Any]) -> dict[str, Any]:
    """Answers with the last message, in capitals."""
    return completion(body["messages"][-1]["content"].upper(), body["model"])


class Loopback:
    """What the server got, and what it does.

    Attributes:
        base_url: its address.
        bodies: the requests, in the order in which they came, failed ones included.
        headers: their headers.
        faults: what happens to the next requests, in this order: a status (``429``), ``"late"``, ``"garbage"``,
            ``"half"`` (a reply that ends in the middle), ``"gone"`` (the connection is closed) or None (nothing).
        owner: who owns the models, as its list says.
        most: the most requests that it answered at the same time.
    """

    def __init__(self, answer: Answer, models: tuple[str, ...]) -> None:
        self.answer, self.models = answer, models
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.faults: list[Any] = []
        self.retry_after: str | None = None
        self.late = 0.5
        self.owner = "us"
        self.base_url = ""
        self.most = self._now = 0
        self.lock = threading.Lock()

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(handler.headers))
            self.times.append(time.monotonic())
            fault = self.faults.pop(0) if self.faults else None
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            self._answer(handler, body, fault)
        finally:
            with self.lock:
                self._now -= 1

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any], fault: Any) -> None:
        if fault == "gone":
            handler.close_connection = True
            return
        if fault == "late":
            time.sleep(self.late)
        if isinstance(fault, int):
            self.send(handler, fault, json.dumps(refusal(fault, f"injected {fault}")).encode())
        elif fault == "garbage":
            self.send(handler, 200, b"<html>Welcome to the proxy</html>")
        else:
            if body["model"] not in self.models:
                reply = refusal(404, f"The model `{body['model']}` does not exist.", "model_not_found")
            else:
                reply = self.answer(body)
            content = json.dumps(reply).encode()
            self.send(handler, reply.get("status", 200), content, cut=fault == "half")

    def send(self, handler: BaseHTTPRequestHandler, status: int, content: bytes, *, cut: bool = False) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        if status == 429 and self.retry_after is not None:
            handler.send_header("Retry-After", self.retry_after)
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2] if cut else content)
        handler.close_connection = cut


@contextlib.contextmanager
def serving(answer: Answer = repeating, models: tuple[str, ...] = ("chat",)) -> Iterator[Loopback]:
    """A server on a free port of this machine, for as long as the context is open."""
    served = Loopback(answer, models)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                served.handle(self)

        def do_GET(self) -> None:
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": served.owner} for name in served.models]
            served.send(self, 200, json.dumps({"object": "list", "data": listed}).encode())

        def log_message(self, *_args: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    served.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
