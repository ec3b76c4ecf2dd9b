"""A deadline for lines: `http.client` waits for each byte of a header as long as for a whole body.

Lines are a response's head and the sizes of its chunks. A body's pieces have their deadline in
`client.Response`, which reads them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import io


class Lines:
    """A stream whose lines end within `window` seconds of their first byte, or a `TimeoutError`.

    All lines of a response's head share that time, until `head_ends`; then each line has its own.
    """

    def __init__(self, stream: io.BufferedReader, window: float) -> None:
        self._stream = stream
        self._window = window
        self._in_head = True
        self._until: float | None = None

    def head_ends(self) -> None:
        """Begin the body."""
        self._in_head = False
        self._until = None

    def readline(self, limit: int = -1, /) -> bytes:
        """Read a line with its end, at most `limit` bytes; at the end of the stream, the rest."""
        line = b""
        while limit < 0 or len(line) < limit:
            buffered = self._stream.peek(1)
            if not buffered:
                break
            # Until the first byte the server works; the connection's own timeout bounds that.
            if self._until is None:
                self._until = time.monotonic() + self._window
            elif time.monotonic() > self._until:
                raise TimeoutError("the answer is too slow")
            length = buffered.find(b"\n") + 1 or len(buffered)
            line += self._stream.read(length if limit < 0 else min(length, limit - len(line)))
            if line.endswith(b"\n"):
                break
        if not self._in_head:
            self._until = None
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
