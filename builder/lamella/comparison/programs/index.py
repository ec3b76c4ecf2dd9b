"""A Python package index of a folder of wheels, by the simple repository API (PEP 503, with hashes).

It runs as a process of its own: `python -m lamella.comparison.programs.index FOLDER`.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import html
import http.server
import os
import re
import socketserver
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.programs.commands import Commands


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves /simple/NAME/ and /NAME.whl."""

    protocol_version = "HTTP/1.1"
    # Headers and body are two writes: with Nagle's algorithm each page would wait for the client's delayed ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Send a page or a wheel."""
        if not self.path.startswith("/simple/"):
            super().do_GET()
            return
        name = self.path.removeprefix("/simple/").strip("/")
        found = [
            each for each in sorted(os.listdir(self.directory)) if each.endswith(".whl") and normalised(each) == name
        ]
        links = "".join(
            f'<a href="/{html.escape(each)}#sha256={digest(os.path.join(self.directory, each))}">{html.escape(each)}</a>\n'
            for each in found
        )
        body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        # An upgrade is on the index at once.
        self.send_header("Cache-Control", "no-cache")
        self.end_headers()
        self.wfile.write(body)

    def end_headers(self) -> None:
        """Let clients keep a wheel, as the public index does: pip's cache keeps nothing without this."""
        if self.path.endswith(".whl"):
            self.send_header("Cache-Control", "max-age=365000000, immutable, public")
        super().end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Log nothing."""


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """One thread for each connection."""

    daemon_threads = True
    request_queue_size = 512


@functools.cache
def digest(path: str) -> str:
    """Return the sha256 of a wheel; a wheel's name is never used for other bytes."""
    with open(path, "rb") as file:
        summed = hashlib.sha256()
        while data := file.read(1 << 20):
            summed.update(data)
    return summed.hexdigest()


def normalised(wheel: str) -> str:
    """Return the project of a wheel's file name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", wheel.partition("-")[0]).lower()


@contextlib.contextmanager
def index(commands: Commands, folder: str) -> Iterator[str]:
    """Serve the wheels in `folder`, and yield HOST:PORT."""
    command = [sys.executable, "-m", "lamella.comparison.programs.index", folder]
    with commands.daemon(command, "port ", is_server=True) as line:
        yield f"localhost:{line.removeprefix('port ')}"


def main() -> None:
    """Serve the folder that the command line names, and print the port."""
    folder = sys.argv[1]
    for each in sorted(os.listdir(folder)):
        if each.endswith(".whl"):
            digest(os.path.join(folder, each))  # Not while a client waits.
    with Server(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        print(f"port {server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
