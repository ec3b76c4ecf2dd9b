"""A server of several package indexes, each in a folder of its own, as GitLab keeps one for each project."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


@dataclass
class Projects:
    """Indexes at `/NAME/simple`, and their files at `/NAME/files`."""

    wheels: Mapping[str, Path]
    """The wheel of each project, which is its package."""
    link: str = ""
    """URL that pages lead to in place of the wheel's own."""
    logins: Mapping[str, str] = field(default_factory=dict)
    """`USER:PASSWORD` that the pages and files of a project need, which has its files at `/downloads/NAME` then."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization of each request."""
    port: int = 0

    @property
    def url(self) -> str:
        """URL of the server."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serve_projects(projects: Projects) -> Iterator[Projects]:
    """Serve `projects` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Nothing."""

        def do_GET(self) -> None:
            projects.requests.append((self.path, self.headers.get("Authorization", "")))
            _, project, kind, name, *_rest = self.path.split("/")
            if project == "downloads":
                project, kind = kind, "files"
            wheel, login = projects.wheels[project], projects.logins.get(project)
            if login and self.headers.get("Authorization") != f"Basic {base64.b64encode(login.encode()).decode()}":
                self._send(401, b"", "text/html")
            elif kind == "files":
                self._send(200, wheel.read_bytes(), "application/octet-stream")
            elif name == project:
                digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
                url = projects.link or (f"/downloads/{name}/{wheel.name}" if login else f"../../files/{wheel.name}")
                page = f'<!DOCTYPE html><html><a href="{url}#sha256={digest}">{wheel.name}</a></html>'
                self._send(200, page.encode(), "text/html")
            else:
                self._send(404, b"", "text/html")

        def do_HEAD(self) -> None:
            self._send(405, b"", "text/html")

        def _send(self, status: int, content: bytes, content_type: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="projects"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        projects.port = port
        yield projects
