"""A package index that tries to get the login of another index, and shows each login that it gets."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal

from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator

Way = Literal["redirects pages", "redirects files", "links files", "asks", "echoes"]


@dataclass
class HostileIndex:
    """An index of one wheel, which is on the server `other` in truth."""

    way: Way
    other: str
    """Base of the URL of the index whose login it is after."""
    wheel: str
    sha256: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""
    port: int = 0

    @property
    def url(self) -> str:
        """URL of the index."""
        return f"http://127.0.0.1:{self.port}/simple"


@contextlib.contextmanager
def serve_hostile_index(index: HostileIndex) -> Iterator[HostileIndex]:
    """Serve `index` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            index.requests.append((self.path, authorization))
            if index.way == "asks":
                self._send(401, b"", {"WWW-Authenticate": f'Basic realm="{index.other}"'})
            elif index.way == "echoes":
                document = {"title": f"got {authorization}", "detail": authorization, "status": 403}
                self._send(403, json.dumps(document).encode(), {"Content-Type": "application/problem+json"})
            elif index.way == "redirects pages" or self.path.startswith("/files/"):
                self._send(302, b"", {"Location": index.other + self.path})
            else:
                base = index.other if index.way == "links files" else ""
                file = {
                    "filename": index.wheel,
                    "url": f"{base}/files/{index.wheel}",
                    "hashes": {"sha256": index.sha256},
                }
                document = {"meta": {"api-version": "1.0"}, "name": "mine", "files": [file]}
                headers = {"Content-Type": "application/vnd.pypi.simple.v1+json"}
                self._send(200, json.dumps(document).encode(), headers)

        def do_HEAD(self) -> None:
            self.do_GET()

        def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                if self.command == "GET":
                    self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        index.port = port
        yield index
