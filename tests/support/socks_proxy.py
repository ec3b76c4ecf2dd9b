"""A SOCKS5 proxy that connects every request to one server."""

from __future__ import annotations

import contextlib
import socket
import threading
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

from support.servers import serving

if TYPE_CHECKING:
    from collections.abc import Iterator


class SocksProxy:
    """`asked` holds the host and port of each request; `code` answers it, 0 for success."""

    def __init__(self, server: str, *, login: str = "", code: int = 0) -> None:
        self.server = server
        self.login = login
        self.code = code
        self.host = ""
        self.asked: list[str] = []

    @contextlib.contextmanager
    def serving(self) -> Iterator[SocksProxy]:
        """Serve on a free loopback port: `host` is `127.0.0.1:PORT`."""
        proxy = self

        class Handler(StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy._serve(self)

        server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        with serving(server) as served:
            self.host = f"127.0.0.1:{served}"
            yield self

    def _serve(self, handler: StreamRequestHandler) -> None:
        read, connection = handler.rfile.read, handler.connection
        methods = read(read(2)[1])
        method = 2 if self.login else 0
        if method not in methods:
            connection.sendall(b"\x05\xff")
            return
        connection.sendall(bytes([5, method]))
        if self.login:
            user = read(read(2)[1])
            given = b":".join([user, read(read(1)[0])])
            connection.sendall(bytes([1, given.decode() != self.login]))
        kind = read(4)[3]
        name = read(read(1)[0]).decode() if kind == 3 else socket.inet_ntop(socket.AF_INET, read(4))
        self.asked.append(f"{name}:{int.from_bytes(read(2), 'big')}")
        connection.sendall(bytes([5, self.code, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self.code == 0:
            host, _, port = self.server.rpartition(":")
            with socket.create_connection((host, int(port))) as other:
                back = threading.Thread(target=_copy, args=(other, connection))
                back.start()
                _copy(connection, other)
                back.join()


def _copy(source: socket.socket, goal: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(1 << 16):
            goal.sendall(content)
    with contextlib.suppress(OSError):
        goal.shutdown(socket.SHUT_WR)
