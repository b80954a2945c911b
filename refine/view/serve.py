"""A web server for one person: on the loopback address alone, answering nothing but what it was given to answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """What a path shows."""

    kind: str
    """media type"""
    body: bytes


def server(answer: Callable[[str], Answer | None], port: int = 0) -> ThreadingHTTPServer:
    """A server, bound and not yet running: `serve_forever` it. No path becomes a file's name here.

    Args:
        answer: a path as it was asked for (with its slash, without a query) to what is there; None for 404.
        port: 0 for any free one, see `url`.

    Raises:
        OSError: the port is taken.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Other names for this machine are how a page from elsewhere would read what is shown here.
            host = self.headers.get("Host", "").partition(":")[0]
            found = answer(self.path.partition("?")[0]) if host in (LOOPBACK, "localhost") else None
            if found is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", found.kind)
            self.send_header("Content-Length", str(len(found.body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # who scrolls on asks no more for what is gone
                self.wfile.write(found.body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a gallery asks for hundreds of pictures."""

    return ThreadingHTTPServer((LOOPBACK, port), Handler)


def url(running: ThreadingHTTPServer) -> str:
    """Where `server` listens."""
    return f"http://{LOOPBACK}:{running.server_address[1]}/"
