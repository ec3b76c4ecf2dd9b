"""Uploads of one blob: in one request, or in parts if the registry refuses the whole.

Source: distribution-spec v1.1, "Pushing blobs". Every registry takes one PUT; GHCR and Google's
take nothing else. Any status of success counts: ECR, Pulp and older registries use others than the
specification's, and the push of the manifest shows a blob that did not arrive.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lamella.layers.errors import InvalidContent, StoreError
from lamella.layers.oci.storage import VerifiedReader
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.registry.client import Body
from lamella.layers.registry.retry import Interrupted
from lamella.layers.text import size

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import OpenContent, Reader
    from lamella.layers.registry.client import Client
    from lamella.layers.registry.response import Response

PART = 32 << 20
"""Bytes of one part; a proxy that refuses whole blobs takes about 100 MB.

`OCI-Chunk-Min-Length` can raise it.
"""

SUCCESS = frozenset(range(200, 300))

_OCTETS = {"Content-Type": "application/octet-stream"}


class TooLarge(InvalidContent):
    """The registry, or a proxy before it, refuses a request of this size."""


class Upload:
    """Attempts to upload one blob. A failed one leaves a session, which registries expire."""

    def __init__(
        self, client: Client, repository: str, descriptor: Descriptor, content: OpenContent, part: int
    ) -> None:
        self._client = client
        self._repository = repository
        self._descriptor = descriptor
        self._content = content
        self._part = part
        self._scopes = {f"repository:{repository}:pull,push"}
        self._what = f"{repository}@{descriptor.digest}"

    def whole(self, location: str = "") -> None:
        """Send the blob in one PUT, in the session at `location` if there is one.

        Raises `TooLarge`, `Interrupted`.
        """
        if not location:
            with self._begin() as response:
                location = location_of(response)
        body = Body(lambda: opened(self._descriptor, self._content), self._descriptor.size)
        with self._ask("PUT", self._last(location), SUCCESS | {404, 413}, body) as response:
            if response.status == 413:
                raise TooLarge(
                    f"{response.host} refuses {self._descriptor.digest}: {size(self._descriptor.size)} at once"
                )
            self._check_session(response)

    def in_parts(self) -> None:
        """Send the blob in parts as large as the registry requires. Raises `Interrupted`."""
        with self._begin() as response:
            location = location_of(response)
            least = response.header("OCI-Chunk-Min-Length")
        part = max(self._part, bounded_decimal(least) or 0)
        with opened(self._descriptor, self._content) as stream:
            for start in range(0, self._descriptor.size, part):
                size = min(part, self._descriptor.size - start)
                body = Body(_Part(stream, size).opened, size)
                span = {"Content-Range": f"{start}-{start + size - 1}"}
                with self._ask("PATCH", location, SUCCESS | {404, 416}, body, span) as response:
                    self._check_session(response)
                    # 201 and 204 may come without a Location: the session stays where it is.
                    location = location_of(response) if response.header("Location") else location
        with self._ask("PUT", self._last(location), SUCCESS | {404}) as response:
            self._check_session(response)

    def _begin(self) -> Response:
        return self._ask("POST", f"/{self._repository}/blobs/uploads/", SUCCESS)

    def _ask(
        self,
        method: str,
        target: str,
        expect: Collection[int],
        body: Body | None = None,
        span: dict[str, str] | None = None,
    ) -> Response:
        headers = _OCTETS | (span or {}) if body else {}
        return self._client.request(method, target, self._what, expect, scopes=self._scopes, headers=headers, body=body)

    def _last(self, location: str) -> str:
        glue = "&" if "?" in location else "?"
        return f"{location}{glue}{urlencode({'digest': str(self._descriptor.digest)})}"

    def _check_session(self, response: Response) -> None:
        if response.status in {404, 416}:
            raise Interrupted(f"{response.host}: lost the upload of {self._descriptor.digest}; try again later")


class _Part:
    """The next `size` bytes of a stream."""

    def __init__(self, stream: Reader, size: int) -> None:
        self._stream = stream
        self._size = self._left = size

    @contextlib.contextmanager
    def opened(self) -> Iterator[Reader]:
        # A stream does not go back: a part that must be sent again, such as with a new token,
        # restarts the upload.
        if self._left < self._size:
            raise Interrupted("chunked upload interrupted; try again later")
        yield self

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(chunk)
        return chunk


@contextlib.contextmanager
def opened(descriptor: Descriptor, content: OpenContent) -> Iterator[Reader]:
    """Open the content as a verified body. Its read errors are not retried."""
    try:
        stream = content()
    except OSError as error:
        raise _unreadable(descriptor, error) from error
    with contextlib.closing(stream):
        yield VerifiedReader(_Local(stream, descriptor), descriptor)


class _Local:
    """A local stream whose read errors are not the network's."""

    def __init__(self, stream: Reader, descriptor: Descriptor) -> None:
        self._stream = stream
        self._descriptor = descriptor

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except OSError as error:
            raise _unreadable(self._descriptor, error) from error


def _unreadable(descriptor: Descriptor, error: OSError) -> StoreError:
    return StoreError(f"cannot read {descriptor.digest} to upload it: {error.strerror or error}")


def location_of(response: Response) -> str:
    """Return the URL at which an upload continues. Raises `InvalidContent`."""
    location = response.header("Location")
    if not location:
        raise InvalidContent(f"{response.host}: upload session without a Location")
    return response.address.joined(location, response.host).url
