"""Copies an image or index with everything that it names, from any storage to any other."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import InvalidContent
from lamella.layers.oci import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest
from lamella.layers.progress import Silent
from lamella.layers.reference import Reference
from lamella.layers.storage import fetch_document, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.layers.progress import Progress
    from lamella.layers.storage import ReadOnlyStorage, Storage

_THREADS = 8
_MAX_DEPTH = 4
"""Levels of indexes within indexes: the specification sets no limit, and nobody needs more."""

How = Literal["sent", "mounted", "present"]


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index and its verified bytes."""

    descriptor: Descriptor
    content: bytes

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """What a manifest is made of; nothing for an index."""
        if self.descriptor.media_type in INDEX_TYPES:
            return ()
        manifest = Manifest.parse(self.content)
        return (manifest.config, *manifest.layers)


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy did."""

    reference: str
    """The destination, pinned."""
    sent: int
    """Blobs that were sent."""
    mounted: int
    """Blobs that the registry took over from the source's repository by itself."""
    present: int
    """Blobs that were there already."""
    moved: int
    """Bytes of the blobs that were sent."""


def copy(source: str, destination: str, *, insecure: bool = False, progress: Progress | None = None) -> Copied:
    """Copies what `source` names, with all platforms, to `destination`; both are references.

    What is there is not sent, what another repository of the same registry has is mounted. The tag comes last: it
    never names what is not whole. Raises what the storages raise.
    """
    progress = progress or Silent()
    origin, goal = Reference.parse(source), Reference.parse(destination)
    with (
        contextlib.closing(open_storage(origin, insecure=insecure)) as here,
        contextlib.closing(open_storage(goal, insecure=insecure, create=True)) as there,
    ):
        root = here.resolve(str(origin.digest) if origin.digest else origin.tag)
        if goal.digest and goal.digest != root.digest:
            raise InvalidContent(f"{source} is {root.digest} and can't become {goal}: name a tag alone")
        documents = list(walk(here, root))
        blobs = list({blob.digest: blob for document in documents for blob in document.blobs}.values())
        outcomes: list[tuple[Descriptor, How]]
        # A registry takes a manifest only after what it names, and keeps them together.
        if goal.registry and there.exists(root):
            outcomes, documents = [(blob, "present") for blob in blobs], documents[:1]
        else:
            neighbour = origin.repository if goal.registry and goal.registry == origin.registry else ""
            outcomes = _move_all(here, there, blobs, neighbour, progress)
        for document in reversed(documents):
            tag = goal.tag if document.descriptor == root else ""
            there.push(document.descriptor, partial(BytesIO, document.content), tag=tag)
    hows = [how for _, how in outcomes]
    moved = sum(blob.size for blob, how in outcomes if how == "sent")
    return Copied(str(goal.at(root.digest)), hows.count("sent"), hows.count("mounted"), hows.count("present"), moved)


def walk(storage: ReadOnlyStorage, root: Descriptor) -> Iterator[Document]:
    """The document that `root` names and all below it, each once, parents before children."""
    seen = {root.digest}
    level = [root]
    for _ in range(_MAX_DEPTH):
        below: list[Descriptor] = []
        for descriptor in level:
            if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
                raise InvalidContent(f"{descriptor.digest} is a {descriptor.media_type}, neither an image nor an index")
            document = Document(descriptor, fetch_document(storage, descriptor))
            yield document
            if descriptor.media_type in INDEX_TYPES:
                below += Index.parse(document.content).manifests
        level = list({entry.digest: entry for entry in below if entry.digest not in seen}.values())
        seen.update(entry.digest for entry in level)
    if level:
        raise InvalidContent(f"{root.digest} holds indexes within indexes, more than {_MAX_DEPTH} deep")


class _Fetched:
    """A fetch as the stream that a push reads and closes."""

    def __init__(self, storage: ReadOnlyStorage, descriptor: Descriptor) -> None:
        self._stack = contextlib.ExitStack()
        self._stream = self._stack.enter_context(storage.fetch(descriptor))

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(size)

    def close(self) -> None:
        self._stack.close()


def _move_all(
    here: ReadOnlyStorage, there: Storage, blobs: Iterable[Descriptor], neighbour: str, progress: Progress
) -> list[tuple[Descriptor, How]]:
    # Largest first, so that the last to end is a small one.
    ordered = sorted(blobs, key=lambda blob: -blob.size)
    progress.begin("copy", sum(blob.size for blob in ordered), "B")

    def move(blob: Descriptor) -> How:
        how = _move(here, there, blob, neighbour)
        progress.advance("copy", blob.size)
        return how

    threads = ThreadPoolExecutor(_THREADS)
    try:
        outcomes = list(threads.map(move, ordered))
    finally:
        # After a failure nothing new begins.
        threads.shutdown(cancel_futures=True)
    progress.end("copy")
    return list(zip(ordered, outcomes, strict=True))


def _move(here: ReadOnlyStorage, there: Storage, blob: Descriptor, neighbour: str) -> How:
    if there.exists(blob):
        return "present"
    if neighbour and there.mount(blob, neighbour):
        return "mounted"
    there.push(blob, lambda: _Fetched(here, blob))
    return "sent"
