"""Copies an image or index with everything that it names and all that is attached to it, between any two storages."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from lamella.layers import referrers, signature
from lamella.layers.errors import FalseMirror, InvalidContent, NotFound
from lamella.layers.oci import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest
from lamella.layers.progress import Silent
from lamella.layers.reference import Reference
from lamella.layers.storage import Fetched, fetch_document, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    def push(self, storage: Storage, tag: str = "") -> None:
        """Pushes it; what it names must be there."""
        storage.push(self.descriptor, partial(BytesIO, self.content), tag=tag)


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
    """Copies what `source` names, with all platforms, signatures and referrers, to `destination`; both are references.

    What is there is not sent, what another repository of the same registry has is mounted. The tag comes last: it
    never names what is not whole, or not signed yet. Raises what the storages raise.
    """
    origin, goal = Reference.parse(source), Reference.parse(destination)
    with (
        contextlib.closing(open_storage(origin, insecure=insecure)) as here,
        contextlib.closing(open_storage(goal, insecure=insecure, create=True, mirrors=False)) as there,
    ):
        root = here.resolve(str(origin.digest) if origin.digest else origin.tag)
        if goal.digest and goal.digest != root.digest:
            raise InvalidContent(f"{source} is {root.digest} and can't become {goal}: name a tag alone")
        neighbour = origin.repository if goal.registry and goal.registry == origin.registry else ""
        move = _Move(here, there, neighbour, progress or Silent())
        documents = list(walk(here, root))
        # A registry takes a manifest only after what it names, and keeps them together.
        if goal.registry and there.exists(root):
            move.outcomes += [(blob, "present") for blob in _blobs(documents)]
        else:
            move.below(documents)
        for descriptor, tag in _attached(here, root):
            move.below(attachment := list(walk(here, descriptor)))
            attachment[0].push(there, tag)
            if not tag and there.referrers(root.digest) is None:
                referrers.add(there, root.digest, descriptor)
        documents[0].push(there, goal.tag)
    hows = [how for _, how in move.outcomes]
    moved = sum(blob.size for blob, how in move.outcomes if how == "sent")
    return Copied(str(goal.at(root.digest)), hows.count("sent"), hows.count("mounted"), hows.count("present"), moved)


def _attached(here: Storage, root: Descriptor) -> list[tuple[Descriptor, str]]:
    """What is attached to `root`, each with the tag that it is found by, or none."""
    found = [(referrer, "") for referrer in referrers.referrers(here, root)]
    tag = signature.tag_of(root.digest)
    with contextlib.suppress(NotFound):
        found.append((here.resolve(tag), tag))
    return found


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


class _Move:
    """Moves from one storage to another, and remembers what became of each blob."""

    def __init__(self, here: ReadOnlyStorage, there: Storage, neighbour: str, progress: Progress) -> None:
        self._here = here
        self._there = there
        self._neighbour = neighbour
        self._progress = progress
        self.outcomes: list[tuple[Descriptor, How]] = []

    def below(self, documents: list[Document]) -> None:
        """All that the first of `documents` names: blobs, then manifests, children before parents."""
        # Largest first, so that the last to end is a small one.
        blobs = sorted(_blobs(documents), key=lambda blob: -blob.size)
        self._progress.begin("copy", sum(blob.size for blob in blobs), "B")
        threads = ThreadPoolExecutor(_THREADS)
        try:
            self.outcomes += zip(blobs, threads.map(self._blob, blobs), strict=True)
        finally:
            # After a failure nothing new begins.
            threads.shutdown(cancel_futures=True)
        self._progress.end("copy")
        for document in reversed(documents[1:]):
            document.push(self._there)

    def _blob(self, blob: Descriptor) -> How:
        how: How = "sent"
        if self._there.exists(blob):
            how = "present"
        elif self._neighbour and self._there.mount(blob, self._neighbour):
            how = "mounted"
        else:
            self._push(blob)
        self._progress.advance("copy", blob.size)
        return how

    def _push(self, blob: Descriptor) -> None:
        while True:
            try:
                self._there.push(blob, lambda: Fetched(self._here, blob))
                return
            except FalseMirror:
                # The storage asks that mirror no more, and there are only so many.
                continue


def _blobs(documents: list[Document]) -> list[Descriptor]:
    return list({blob.digest: blob for document in documents for blob in document.blobs}.values())
