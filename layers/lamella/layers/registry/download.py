"""One blob of a registry as one stream, over as many connections as it takes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.registry.retry import Interrupted, Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.registry.response import Response

_SKIP = 1 << 20
_PROGRESS = 64 << 10
"""Bytes of a useful connection: with one byte each, a blob of 1 GB would never end."""
_PART = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)")


class Download:
    """A blob, continued after a broken connection: by Range, or from the start if unsupported.

    `ask` makes the request with the given headers and returns a response that passed `fitting`. No
    byte is returned twice, so that a reader can hash them.
    """

    def __init__(
        self, descriptor: Descriptor, ask: Callable[[dict[str, str], int], Response], patience: Patience
    ) -> None:
        self._descriptor = descriptor
        self._ask = ask
        self._patience = patience
        self._offset = 0
        self._failures = 0
        self._came = 0
        self._response: Response | None = None

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        while True:
            try:
                if self._response is None:
                    self._response = self._open()
                chunk = self._response.read(size)
                if not chunk and size and self._offset < self._descriptor.size:
                    raise Interrupted(f"{self._response.host}: {self._descriptor.digest} ended early; try again later")
            except Interrupted as failure:
                self.close()
                if self._offset == self._descriptor.size:
                    # All bytes came before the connection broke.
                    return b""
                # In a row: a long blob over a poor line may break often, if each connection brings
                # a piece.
                self._failures = 1 if self._came >= _PROGRESS else self._failures + 1
                self._came = 0
                self._patience.wait(self._failures, failure)
            else:
                self._came += len(chunk)
                self._offset += len(chunk)
                return chunk

    def close(self) -> None:
        """Give the connection back. Idempotent."""
        if self._response:
            self._response.close()
            self._response = None

    def _open(self) -> Response:
        response = self._ask({"Range": f"bytes={self._offset}-"} if self._offset else {}, self._offset)
        try:
            if response.status != 206:
                self._skip(response)
        except BaseException:
            response.close()
            raise
        return response

    def _skip(self, response: Response) -> None:
        # A registry without Range starts again; these bytes were returned before.
        left = self._offset
        while left:
            chunk = response.read(min(left, _SKIP))
            if not chunk:
                raise Interrupted(f"{response.host}: {self._descriptor.digest} ended early; try again later")
            left -= len(chunk)


def fitting(response: Response, descriptor: Descriptor, offset: int) -> Response:
    """Return `response` if its head is that of the blob, from `offset` on or from its start.

    Else close it and raise `InvalidContent`.
    """
    wrong = ""
    part = _PART.fullmatch(response.header("Content-Range"))
    length = part[2] if part else response.header("Content-Length")
    if response.content_type == "text/html":
        wrong = f"answer for {descriptor.digest} is a web page; check for a proxy or a login page in between"
    elif response.status == 206 and (not part or int(part[1]) != offset):
        wrong = f"sent the wrong range of {descriptor.digest}"
    elif length.isdecimal() and length.lstrip("0") != str(descriptor.size).lstrip("0"):
        wrong = f"has {length[:20]} bytes for {descriptor.digest}, which should have {descriptor.size}"
    if wrong:
        response.close()
        raise InvalidContent(f"{response.host}: {wrong}")
    return response
