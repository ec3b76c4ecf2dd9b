"""Servers of the tests, on loopback."""

from __future__ import annotations

import contextlib
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socketserver import TCPServer


@contextlib.contextmanager
def serving(server: TCPServer) -> Iterator[int]:
    """Serve in a thread; yields the port. Ends with the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def answering(content: bytes) -> Iterator[str]:
    """Serve a port that answers the first bytes of each connection with `content` and closes it; yields `HOST:PORT`."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                self.connection.recv(1 << 16)
                self.connection.sendall(content)

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with serving(server) as port:
        yield f"127.0.0.1:{port}"
