"""A server on this machine that says what a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol


class Answers(Protocol):
    """What a server says."""

    def answer(self, path: str, body: Any) -> Any:
        """A status, bytes, or an object as JSON; ``body`` None: a GET."""
        ...


@contextmanager
def serving(server: Answers) -> Iterator[str]:
    """Its address, as ``http://127.0.0.1:PORT/v1``, while it listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.give(server.answer(self.path, body))

        def do_GET(self) -> None:
            self.give(server.answer(self.path, None))

        def give(self, made: Any) -> None:
            status, data = (made, b"trouble") if isinstance(made, int) else (200, made)
            data = data if isinstance(data, bytes) else json.dumps(data).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):
                self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/v1"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
