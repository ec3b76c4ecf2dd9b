"""A reference as a tree of documents: the index, its images, and the attachments of each."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.oci import referrers
from lamella.layers.oci.documents import INDEX_TYPES, MANIFEST_TYPES, Descriptor, Index, Manifest
from lamella.layers.oci.storage import fetch_document
from lamella.layers.signing import cosign
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.layers.errors import LayersError
    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.storage import ReadOnlyStorage, Storage

_MAX_DEPTH = 4
"""Levels of indexes within indexes: the specification sets no limit, and nothing real has more."""
_MAX_DOCUMENTS = 5_000
"""Manifests of one tree. A request each: an index of 4 MiB could name ten times as many."""


@dataclass(frozen=True, slots=True)
class Document:
    """A manifest or index and its verified bytes."""

    descriptor: Descriptor
    content: bytes

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """The config and layers of a manifest; nothing for an index."""
        if self.descriptor.media_type in INDEX_TYPES:
            return ()
        manifest = Manifest.parse(self.content)
        return (manifest.config, *manifest.layers)

    def push(self, storage: Storage, tag: str = "") -> None:
        """Push it. All that it names must be in `storage` already."""
        storage.push(self.descriptor, partial(BytesIO, self.content), tag=tag)


@dataclass(frozen=True, slots=True)
class Attachment:
    """A document attached to `subject`, and the tag that it is found by; empty for a referrer."""

    descriptor: Descriptor
    subject: Digest
    tag: str = ""


def walk(
    storage: ReadOnlyStorage, root: Descriptor, failed: Callable[[Descriptor, LayersError], None] | None = None
) -> Iterator[Document]:
    """Yield the document that `root` names and all below it, each once, parents before children.

    `failed`: called with each document that is missing or not what its parent says, in place of raising `NotFound` or
    `InvalidContent`. What `fetch` raises besides is raised.
    """
    seen = {root.digest}
    level = [root]
    for _ in range(_MAX_DEPTH):
        below: list[Descriptor] = []
        for descriptor in level:
            try:
                document, children = _read(storage, descriptor)
            except (NotFound, InvalidContent) as error:
                if failed is None:
                    raise
                failed(descriptor, error)
                continue
            below += children
            yield document
        level = list({entry.digest: entry for entry in below if entry.digest not in seen}.values())
        seen.update(entry.digest for entry in level)
        if len(seen) > _MAX_DOCUMENTS:
            raise InvalidContent(f"{root.digest}: names more than {_MAX_DOCUMENTS:,} documents; refused")
    if level:
        raise InvalidContent(f"{root.digest}: indexes nested more than {_MAX_DEPTH} levels deep")


def attached(
    storage: ReadOnlyStorage,
    documents: Sequence[Document],
    failed: Callable[[Descriptor, LayersError], None] | None = None,
) -> list[Attachment]:
    """Return the referrers of each of `documents`, and what cosign keeps under tags made of the first one's digest.

    `failed`: called with each document whose list of referrers is missing or damaged, in place of raising.
    """
    found = []
    for document in documents:
        subject = document.descriptor
        try:
            listed = referrers.referrers(storage, subject)
        except (NotFound, InvalidContent) as error:
            if failed is None:
                raise
            failed(subject, error)
            continue
        found += [Attachment(referrer, subject.digest) for referrer in listed]
    root = documents[0].descriptor.digest
    for tag in (cosign.tag_of(root), *_cosigns(root)):
        with contextlib.suppress(NotFound):
            found.append(Attachment(storage.resolve(tag), root, tag))
    return found


def _read(storage: ReadOnlyStorage, descriptor: Descriptor) -> tuple[Document, tuple[Descriptor, ...]]:
    """A document, parsed so that a wrong one is noticed here, and its children."""
    if descriptor.media_type not in INDEX_TYPES | MANIFEST_TYPES:
        raise InvalidContent(
            f"{descriptor.digest}: {escaped(descriptor.media_type, 100)} is neither an image nor an index"
        )
    document = Document(descriptor, fetch_document(storage, descriptor))
    if descriptor.media_type in INDEX_TYPES:
        return document, Index.parse(document.content).manifests
    Manifest.parse(document.content)
    return document, ()


def _cosigns(digest: Digest) -> list[str]:
    # Source: sigstore/cosign, specs/ATTESTATION_SPEC.md and SBOM_SPEC.md.
    return [f"{digest.algorithm}-{digest.hex}.{kind}" for kind in ("att", "sbom")]
