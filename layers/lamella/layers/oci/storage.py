"""The interfaces between the engine and where bytes are: an OCI layout folder or a registry.

The engine never knows which of the two it talks to; `lamella.layers.storages` opens the one that a reference names.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol, TypeVar

from lamella.layers.errors import FalseMirror, InvalidContent
from lamella.layers.oci.documents import MAX_DOCUMENT, Descriptor
from lamella.layers.text import size

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lamella.layers.oci.documents import Digest

_Result = TypeVar("_Result")


class Reader(Protocol):
    """A stream that is read in chunks."""

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; b"" at the end."""


class Opened(Reader, Protocol):
    """A stream that its opener closes."""

    def close(self) -> None:
        """Release the stream's resources."""


OpenContent = Callable[[], Opened]
"""Opens the same bytes again at every call, so that an upload can be tried again. The caller closes each."""


class HashedFile(io.FileIO):
    """A file that this process hashed while it wrote it: a storage on this disk copies it without another look."""


class Fetcher(Protocol):
    """Gives blobs and manifests by descriptor."""

    def fetch(self, descriptor: Descriptor) -> AbstractContextManager[Reader]:
        """A verified stream of the content: the read that meets its end raises `InvalidContent` on a wrong digest or size.

        Broken connections are resumed inside. Raises `NotFound`, `Unreachable`, `Denied`.
        """


class Pusher(Protocol):
    """Takes blobs and manifests. Every call is idempotent; nothing is visible before it is whole."""

    def exists(self, descriptor: Descriptor) -> bool:
        """Whether the content is there. False means certainly absent; raises when that could not be asked."""

    def check_writable(self) -> None:
        """Raise now what `push` would raise for the lack of a right or of a place; store nothing.

        Raises `Denied`, `Unreachable`, `StoreError`.
        """

    def push(self, descriptor: Descriptor, content: OpenContent, *, tag: str = "") -> None:
        """Stores the content, to manifests or blobs by its media type; `tag` names a manifest or index as well.

        Does not ask whether it is there: that is `exists`, and the plan's business.
        """

    def mount(self, descriptor: Descriptor, repository: str) -> bool:
        """Mount a blob from another repository of the same registry; return False if the registry did not."""


class Resolver(Protocol):
    """Turns names into descriptors."""

    def resolve(self, name: str) -> Descriptor:
        """The descriptor of the manifest or index that a tag or digest names; `NotFound` when it names nothing."""

    def tags(self) -> list[str]:
        """Every tag, sorted."""


class ReadOnlyStorage(Fetcher, Resolver, Protocol):
    """A storage that is only read, or a cache in front of one."""

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """Return the referrers of `digest`, or None without the API; then a tag lists them (see `referrers`)."""


class Storage(ReadOnlyStorage, Pusher, Protocol):
    """All of it: what `OciLayout` and `Registry` are."""

    def close(self) -> None:
        """Close all connections. Do not use the storage afterwards."""


class Remover(Protocol):
    """Takes names away. Content stays until the storage's own collection finds it without a name."""

    def remove_tag(self, tag: str) -> None:
        """Remove the tag alone, and nothing that it names. Idempotent.

        Raises `Unsupported` if the storage can't, `Denied`, `Unreachable`, `StoreError`.
        """

    def delete(self, digest: Digest) -> None:
        """Remove a manifest or index, with every tag that names it. Idempotent. Raises as `remove_tag`."""


class EditableStorage(Storage, Remover, Protocol):
    """A storage whose names can be taken away, too."""


class VerifiedReader:
    """Reads `stream` as what `descriptor` names: bounded by its size, its digest checked at its end, once.

    Source of the idea: umoci, pkg/hardening/verified_reader.go.
    """

    def __init__(self, stream: Reader, descriptor: Descriptor) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._hash = hashlib.new(descriptor.digest.algorithm)
        self._left = descriptor.size
        self._checked = False

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; raises `InvalidContent` instead of handing out the end of wrong content."""
        want = self._left if size < 0 else min(size, self._left)
        chunk = self._stream.read(want) if want else b""
        if want and not chunk:
            raise InvalidContent(
                f"{self._descriptor.digest} ended {self._left} bytes before its {self._descriptor.size} bytes"
            )
        self._hash.update(chunk)
        self._left -= len(chunk)
        if self._left < 0:
            raise InvalidContent(f"{self._descriptor.digest} is longer than its {self._descriptor.size} bytes")
        if self._left == 0 and not self._checked:
            self._check_end()
        return chunk

    def _check_end(self) -> None:
        if self._stream.read(1):
            raise InvalidContent(f"{self._descriptor.digest} is longer than its {self._descriptor.size} bytes")
        if self._hash.hexdigest() != self._descriptor.digest.hex:
            raise InvalidContent(
                f"{self._descriptor.digest} has other content: its bytes have the digest "
                f"{self._descriptor.digest.algorithm}:{self._hash.hexdigest()}"
            )
        self._checked = True


class Fetched:
    """A fetch as the stream that a push reads and closes."""

    def __init__(self, fetcher: Fetcher, descriptor: Descriptor) -> None:
        self._stack = ExitStack()
        self._stream = self._stack.enter_context(fetcher.fetch(descriptor))

    def read(self, size: int = -1, /) -> bytes:
        """See `Reader`."""
        return self._stream.read(size)

    def close(self) -> None:
        """Ends the fetch."""
        self._stack.close()


def fetch_document(fetcher: Fetcher, descriptor: Descriptor) -> bytes:
    """The verified bytes of a manifest, index or config, of at most 4 MiB."""
    if descriptor.size > MAX_DOCUMENT:
        raise InvalidContent(
            f"{descriptor.digest} is a document of {size(descriptor.size)}: at most {size(MAX_DOCUMENT)}"
        )

    def read() -> bytes:
        with fetcher.fetch(descriptor) as stream:
            return b"".join(iter(lambda: stream.read(1 << 20), b""))

    return _from_an_honest_one(read)


def transfer(here: Fetcher, there: Pusher, descriptor: Descriptor) -> None:
    """Pushes `there` what `here` has."""
    _from_an_honest_one(lambda: there.push(descriptor, lambda: Fetched(here, descriptor)))


def save(here: Fetcher, descriptor: Descriptor, path: str, advance: Callable[[int], None]) -> None:
    """Write what `descriptor` names to the new file `path`, in pieces; `advance` gets the bytes of each."""

    def write() -> None:
        with here.fetch(descriptor) as stream, open(path, "wb") as file:
            while piece := stream.read(1 << 20):
                file.write(piece)
                advance(len(piece))

    _from_an_honest_one(write)


def _from_an_honest_one(read: Callable[[], _Result]) -> _Result:
    while True:
        try:
            return read()
        except FalseMirror:
            # The storage asks that mirror no more, and there are only so many.
            continue
