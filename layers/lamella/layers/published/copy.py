"""Copies an image or index with everything that it names and all that is attached to it, between any two storages."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.oci import referrers
from lamella.layers.oci.documents import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document, transfer
from lamella.layers.progress import Silent
from lamella.layers.signing import cosign
from lamella.layers.storages import open_storage, trust_for
from lamella.layers.text import counted, size
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.storage import ReadOnlyStorage, Storage
    from lamella.layers.progress import Progress

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
    """What a copy did, or would do."""

    reference: str
    """The destination, pinned."""
    sent: int
    """Blobs that were sent."""
    mounted: int
    """Blobs that the registry took over from the source's repository by itself; one that does not is sent them."""
    present: int
    """Blobs that were there already."""
    moved: int
    """Bytes of the blobs that were sent."""

    def __repr__(self) -> str:
        blobs = f"{counted(self.sent, 'blob')} uploaded, {self.mounted} mounted, {self.present} already there"
        return f"<Copied {self.reference}: {blobs}; {size(self.moved)}>"


def copy(
    source: str, destination: str, *, trust: Trust = Trust(), dry_run: bool = False, progress: Progress | None = None
) -> Copied:
    """Copy what `source` names to `destination`, with each platform and everything attached; both are references.

    Attached are the referrers of the index and of its images, and what cosign stores under tags made of the index's digest:
    signatures, attestations, bills of materials. Idempotent: skips content that the destination has, and mounts what another
    repository of the same registry has. Pushes the tag last, so it never names incomplete or unsigned content. `trust`
    applies to the destination; see `storages.trust_for` for the source. Raises `InvalidReference`, `NotFound`,
    `NotSigned` unless the source is signed as `trust` and this machine's policy require, `InvalidContent`, `Denied`,
    `Unreachable`, `StoreError`.
    """
    origin, goal = Reference.parse(source), Reference.parse(destination)
    with (
        contextlib.closing(open_storage(origin, trust_for(origin, goal, trust))) as here,
        contextlib.closing(open_storage(goal, trust, create=True, mirrors=False)) as there,
    ):
        root = here.resolve(str(origin.digest) if origin.digest else origin.tag)
        cosign.require(here, origin, root.digest, trust)
        if goal.digest and goal.digest != root.digest:
            raise InvalidContent(f"{goal}: {source} has the digest {root.digest}; use a tag alone")
        neighbour = origin.repository if goal.registry and goal.registry == origin.registry else ""
        move = _Move(here, there, neighbour, progress or Silent(), writes=not dry_run)
        documents = list(walk(here, root))
        # A registry takes a manifest only after what it names, and keeps them together.
        if goal.registry and there.exists(root):
            move.outcomes += [(blob, "present") for blob in _blobs(documents)]
        else:
            move.below(documents)
        for attached in _attached(here, documents):
            move.below(attachment := list(walk(here, attached.descriptor)))
            if dry_run:
                continue
            attachment[0].push(there, attached.tag)
            if not attached.tag and there.referrers(attached.subject) is None:
                referrers.add(there, attached.subject, attached.descriptor)
        if not dry_run:
            documents[0].push(there, goal.tag)
    hows = [how for _, how in move.outcomes]
    moved = sum(blob.size for blob, how in move.outcomes if how == "sent")
    return Copied(str(goal.at(root.digest)), hows.count("sent"), hows.count("mounted"), hows.count("present"), moved)


@dataclass(frozen=True, slots=True)
class _Attached:
    """What is attached to `subject`, and the tag that it is found by; a referrer has none."""

    descriptor: Descriptor
    subject: Digest
    tag: str = ""


def _attached(here: Storage, documents: list[Document]) -> list[_Attached]:
    found = []
    for document in documents:
        subject = document.descriptor
        found += [_Attached(referrer, subject.digest) for referrer in referrers.referrers(here, subject)]
    root = documents[0].descriptor.digest
    for tag in (cosign.tag_of(root), *_cosigns(root)):
        with contextlib.suppress(NotFound):
            found.append(_Attached(here.resolve(tag), root, tag))
    return found


def _cosigns(digest: Digest) -> list[str]:
    # Source: sigstore/cosign, specs/ATTESTATION_SPEC.md and SBOM_SPEC.md.
    return [f"{digest.algorithm}-{digest.hex}.{kind}" for kind in ("att", "sbom")]


def walk(storage: ReadOnlyStorage, root: Descriptor) -> Iterator[Document]:
    """The document that `root` names and all below it, each once, parents before children."""
    seen = {root.digest}
    level = [root]
    for _ in range(_MAX_DEPTH):
        below: list[Descriptor] = []
        for descriptor in level:
            if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
                raise InvalidContent(f"{descriptor.digest}: {descriptor.media_type} is neither an image nor an index")
            document = Document(descriptor, fetch_document(storage, descriptor))
            yield document
            if descriptor.media_type in INDEX_TYPES:
                below += Index.parse(document.content).manifests
        level = list({entry.digest: entry for entry in below if entry.digest not in seen}.values())
        seen.update(entry.digest for entry in level)
    if level:
        raise InvalidContent(f"{root.digest}: indexes nested more than {_MAX_DEPTH} levels deep")


class _Move:
    """Moves from one storage to another, and remembers what became of each blob."""

    def __init__(
        self, here: ReadOnlyStorage, there: Storage, neighbour: str, progress: Progress, *, writes: bool
    ) -> None:
        self._here = here
        self._there = there
        self._neighbour = neighbour
        self._progress = progress
        self._writes = writes
        self._would: set[Digest] = set()
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
        if not self._writes:
            return
        for document in reversed(documents[1:]):
            document.push(self._there)

    def _blob(self, blob: Descriptor) -> How:
        how: How = "sent"
        if blob.digest in self._would or self._there.exists(blob):
            how = "present"
        elif self._neighbour and (not self._writes or self._there.mount(blob, self._neighbour)):
            how = "mounted"
        elif self._writes:
            transfer(self._here, self._there, blob)
        if not self._writes:
            self._would.add(blob.digest)
        self._progress.advance("copy", blob.size)
        return how


def _blobs(documents: list[Document]) -> list[Descriptor]:
    return list({blob.digest: blob for document in documents for blob in document.blobs}.values())
