"""A package index on loopback, with the faults of real ones. Source: PyPA specifications, "Simple repository API"."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from lamella.builder.indexes.model import Login, PackageIndex
from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass
class Index:
    """The index of the wheels and source distributions in a folder."""

    folder: Path
    login: str = ""
    """`USER:PASSWORD` that every request needs; empty for none."""
    html: bool = False
    """Whether its pages are HTML (PEP 503) and not JSON (PEP 691)."""
    yanked: set[str] = field(default_factory=set)
    """Names of files."""
    pythons: dict[str, str] = field(default_factory=dict)
    """Requires-Python of a file."""
    digests: dict[str, str] = field(default_factory=dict)
    """sha256 to state for a file instead of its own; empty to state none."""
    cut: set[str] = field(default_factory=set)
    """Files of which only half is sent."""
    pages: bool = False
    """Whether a web page comes in place of each file, as from a proxy that asks for a login."""
    redirect: str = ""
    """Base of the URL that files are redirected to."""
    tags: bool = False
    """Whether files have an ETag, and are not sent again to a client that has them."""
    query: str = ""
    """Query of each file's URL, without which it is not found, as presigned URLs have; empty for none."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""
    unchanged: list[str] = field(default_factory=list)
    """Names of the files that a client had already."""
    port: int = 0

    @property
    def url(self) -> str:
        """URL of the index."""
        return f"http://127.0.0.1:{self.port}/simple"

    def index(self, *, login: str = "", explicit: bool = False) -> PackageIndex:
        """It, as configured with `login` (`USER:PASSWORD`)."""
        user, _, password = login.partition(":")
        return PackageIndex(self.url, explicit=explicit, login=Login(user, password) if login else None)

    @property
    def suffix(self) -> str:
        """End of each file's URL."""
        return f"?{self.query}" if self.query else ""

    def downloads(self) -> list[str]:
        """Names of the files that were asked for."""
        return [path.partition("?")[0].rpartition("/")[2] for path, _ in self.requests if path.startswith("/files/")]


@contextlib.contextmanager
def serve_index(index: Index) -> Iterator[Index]:
    """Serve `index` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            authorization = self.headers.get("Authorization", "")
            index.requests.append((self.path, authorization))
            expected = f"Basic {base64.b64encode(index.login.encode()).decode()}" if index.login else authorization
            if authorization != expected:
                self._send(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
            elif self.path.startswith("/simple/"):
                self._page(self.path.split("/")[2])
            else:
                self._file(self.path.partition("?")[0].rpartition("/")[2])

        def do_HEAD(self) -> None:
            self._send(405, b"", {})

        def _page(self, name: str) -> None:
            files = [path for path in sorted(index.folder.iterdir()) if _project(path.name) == name]
            if not files:
                self._send(404, b"", {})
            elif index.html:
                lines = [
                    f'<a href="../../files/{path.name}{_fragment(index, path)}"'
                    f"{' data-yanked' if path.name in index.yanked else ''}>{path.name}</a>"
                    for path in files
                ]
                content = f"<!DOCTYPE html><html><body>{''.join(lines)}</body></html>"
                self._send(200, content.encode(), {"Content-Type": "text/html"})
            else:
                listed = [
                    {
                        "filename": path.name,
                        "url": f"../../files/{path.name}{index.suffix}",
                        "hashes": {"sha256": _digest(index, path)} if _digest(index, path) else {},
                        "yanked": path.name in index.yanked,
                        "requires-python": index.pythons.get(path.name),
                    }
                    for path in files
                ]
                document = {"meta": {"api-version": "1.0"}, "name": name, "files": listed}
                content_type = "application/vnd.pypi.simple.v1+json"
                self._send(200, json.dumps(document).encode(), {"Content-Type": content_type})

        def _file(self, name: str) -> None:
            path = index.folder / name
            if index.redirect:
                self._send(302, b"", {"Location": f"{index.redirect}/files/{name}"})
            elif index.pages:
                self._send(200, b"<html>log in</html>", {"Content-Type": "text/html"})
            elif not path.exists() or not self.path.endswith(index.suffix):
                self._send(404, b"", {})
            else:
                self._send(*_answer(index, path, self.headers.get("If-None-Match", "")), cut=name in index.cut)

        def _send(self, status: int, content: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content[: len(content) // 2] if cut else content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        index.port = port
        yield index


def _answer(index: Index, path: Path, known: str) -> tuple[int, bytes, dict[str, str]]:
    content, headers = path.read_bytes(), {"Content-Type": "application/octet-stream"}
    if not index.tags:
        return 200, content, headers
    headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
    if known != headers["ETag"]:
        return 200, content, headers
    index.unchanged.append(path.name)
    return 304, b"", headers


def _project(filename: str) -> str:
    return filename.partition("-")[0].replace("_", "-").lower()


def _digest(index: Index, path: Path) -> str:
    return index.digests.get(path.name, hashlib.sha256(path.read_bytes()).hexdigest())


def _fragment(index: Index, path: Path) -> str:
    digest = _digest(index, path)
    return f"#sha256={digest}" if digest else ""
