"""Connections whose answers do not drip: `http.client` would wait for each byte of a header as long as for a whole body.

A body's pieces are watched where they are read (`http.Response`); lines, which are a response's head and the sizes of its
chunks, are read inside the library, and here.
"""

from __future__ import annotations

import functools
import http.client
import time
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import io
    import socket

    from urllib3 import HTTPConnectionPool


class Lines:
    """A stream whose lines come within `window` seconds of their first byte, or end in a `TimeoutError`.

    All lines of a response's head have that time together, until `head_ends`; then each has it.
    """

    def __init__(self, stream: io.BufferedReader, window: float) -> None:
        self._stream = stream
        self._window = window
        self._in_head = True
        self._until: float | None = None

    def head_ends(self) -> None:
        """What follows is a body."""
        self._in_head = False
        self._until = None

    def readline(self, limit: int = -1, /) -> bytes:
        """The next line with its end, at most `limit` bytes of it; what there is at the end of the stream."""
        line = b""
        while limit < 0 or len(line) < limit:
            there = self._stream.peek(1)
            if not there:
                break
            # Waiting for the first byte is the server's thinking, which has a time of its own.
            if self._until is None:
                self._until = time.monotonic() + self._window
            elif time.monotonic() > self._until:
                raise TimeoutError("the answer is too slow")
            length = there.find(b"\n") + 1 or len(there)
            line += self._stream.read(length if limit < 0 else min(length, limit - len(line)))
            if line.endswith(b"\n"):
                break
        if not self._in_head:
            self._until = None
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Response(http.client.HTTPResponse):
    seconds: float

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._lines = Lines(self.fp, self.seconds)
        self.fp = cast("io.BufferedReader", self._lines)

    def begin(self) -> None:
        super().begin()
        self._lines.head_ends()


@functools.cache
def pool_classes(window: float) -> dict[str, type[HTTPConnectionPool]]:
    """For `PoolManager.pool_classes_by_scheme`."""
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection

    class Response(_Response):
        seconds = window

    class Plain(HTTPConnection):
        response_class = Response

    class Secure(HTTPSConnection):
        response_class = Response

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}
