"""One blob from a registry as one stream, however often the connection breaks."""

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
_PART = re.compile(r"bytes ([0-9]{1,18})-[0-9]+/([0-9]+|\*)")


class Download:
    """Reads a blob and goes on after a broken connection, where the registry knows Range, or else from the start.

    `ask` makes the request with the given headers and gives a response that passed `fitting`. What was read before is
    never read again from here, so a reader that hashes what it is given stays right.
    """

    def __init__(
        self, descriptor: Descriptor, ask: Callable[[dict[str, str], int], Response], patience: Patience
    ) -> None:
        self._descriptor = descriptor
        self._ask = ask
        self._patience = patience
        self._offset = 0
        self._failures = 0
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
                    # Everything came; that the connection broke behind it does not matter.
                    return b""
                # In a row: a long blob over a poor line may break often, as long as it gets on.
                self._failures += 1
                self._patience.wait(self._failures, failure)
            else:
                self._failures = 0 if chunk else self._failures
                self._offset += len(chunk)
                return chunk

    def close(self) -> None:
        """Gives the connection back."""
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
        # A registry without Range begins again; what was handed out already is not handed out twice.
        left = self._offset
        while left:
            chunk = response.read(min(left, _SKIP))
            if not chunk:
                raise Interrupted(f"{response.host}: {self._descriptor.digest} ended early; try again later")
            left -= len(chunk)


def fitting(response: Response, descriptor: Descriptor, offset: int) -> Response:
    """`response`, whose head is that of the blob from `offset` on or from its start; else closed, and `InvalidContent`."""
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
