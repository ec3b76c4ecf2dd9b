"""Copy an image or index, everything that it names and all that is attached to it, between any two storages."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import InvalidContent
from lamella.layers.oci import referrers
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import transfer
from lamella.layers.progress.display import Silent
from lamella.layers.published.lost import NamingLost
from lamella.layers.published.tree import attached, walk
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from lamella.layers.storages import open_storage, trust_for
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Descriptor, Digest
    from lamella.layers.oci.storage import ReadOnlyStorage, Storage
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.tree import Document

_THREADS = 8

How = Literal["sent", "mounted", "present"]


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
    signatures, attestations, bills of materials. Idempotent: asks the destination for each part and sends those that it
    lacks, so a copy repairs a tag that lost some; mounts what another repository of the same registry has. Pushes the tag
    last, so it never names incomplete or unsigned content. `trust` applies to the destination; see `storages.trust_for` for the source. Raises `InvalidReference`, `NotFound`,
    `NotSigned` unless the source is signed as `trust` and this machine's policy require, `InvalidContent`, `Denied`,
    `Unreachable`, `StoreError`.
    """
    origin, goal = Reference.parse(source), Reference.parse(destination)
    cosign.check_keys(trust)
    with (
        contextlib.closing(open_storage(origin, trust_for(origin, goal, trust))) as here,
        contextlib.closing(open_storage(goal, trust, create=True, mirrors=False)) as there,
    ):
        root = here.resolve(str(origin.digest) if origin.digest else origin.tag)
        cosign.require(here, origin, root.digest, trust)
        if goal.digest and goal.digest != root.digest:
            raise InvalidContent(f"{goal}: {source} has the digest {root.digest}; use a tag alone")
        neighbour = origin.repository if goal.registry and goal.registry == origin.registry else ""
        source_of = NamingLost(here, origin)
        move = _Move(source_of, there, neighbour, progress or Silent(), writes=not dry_run)
        documents = list(walk(source_of, root))
        move.below(documents)
        for each in attached(here, documents):
            move.below(attachment := list(walk(source_of, each.descriptor)))
            if dry_run:
                continue
            attachment[0].push(there, each.tag)
            if not each.tag and there.referrers(each.subject) is None:
                referrers.add(there, each.subject, each.descriptor)
        if not dry_run:
            documents[0].push(there, goal.tag)
    hows = [how for _, how in move.outcomes]
    moved = sum(blob.size for blob, how in move.outcomes if how == "sent")
    return Copied(str(goal.at(root.digest)), hows.count("sent"), hows.count("mounted"), hows.count("present"), moved)


class _Move:
    """Moves from one storage to another, and remembers the outcome for each blob."""

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
        """Move all below the first of `documents`: blobs, then manifests, children before parents.

        A parent at the destination proves nothing: registries lose children to garbage collection and retention jobs.
        """
        # Largest first, so that the last to end is a small one.
        blobs = sorted(_blobs(documents), key=lambda blob: -blob.size)
        self._progress.begin("copy", sum(blob.size for blob in blobs), "B")
        threads = ThreadPoolExecutor(_THREADS)
        try:
            self.outcomes += zip(blobs, threads.map(self._blob, blobs), strict=True)
            there = list(threads.map(lambda child: self._there.exists(child.descriptor), documents[1:]))
        finally:
            # After a failure nothing new begins.
            threads.shutdown(cancel_futures=True)
        self._progress.end("copy")
        if not self._writes:
            return
        # A registry takes a manifest only after its children.
        for document, present in reversed(list(zip(documents[1:], there, strict=True))):
            if not present:
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
