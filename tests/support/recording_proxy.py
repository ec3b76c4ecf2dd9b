"""A proxy that records each request and answers all of them with one status."""

from __future__ import annotations

import contextlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


class RecordingProxy:
    """`requests` holds the request line and the Proxy-Authorization header of each request."""

    def __init__(self, status: int = 502) -> None:
        self.status = status
        self.host = ""
        self.requests: list[tuple[str, str]] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[RecordingProxy]:
        """Serve on a free loopback port: `host` is `127.0.0.1:PORT`."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
                """Write no log."""

            def answer(self) -> None:
                proxy.requests.append((f"{self.command} {self.path}", self.headers.get("Proxy-Authorization", "")))
                self.send_response(proxy.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_CONNECT = do_GET = do_HEAD = do_POST = answer  # noqa: N815 - the library's names

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        with serving(server) as served:
            self.host = f"127.0.0.1:{served}"
            yield self
