"""Attachments of an image or index: manifests whose subject it is, such as a bill of materials.

In a layout, and in a registry without the referrers API, an index under a tag made of the subject's digest lists them.
Source: distribution-spec v1.1, "Listing Referrers" and "Referrers Tag Schema".
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from lamella.layers.errors import NotFound
from lamella.layers.oci.annotations import TITLE
from lamella.layers.oci.documents import EMPTY, INDEX_TYPES, MANIFEST, Descriptor, Index, Manifest
from lamella.layers.oci.storage import fetch_document

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.storage import ReadOnlyStorage, Storage


MOST = 64
"""Documents of one type that are read at most, the latest ones: everyone with the right to push can attach more."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What to attach: one document of a type."""

    artifact_type: str
    """Of the whole, such as application/vnd.cyclonedx+json."""
    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    """Name of its file, by which tools that fetch it write it; empty for none."""


def attach(
    storage: Storage,
    subject: Descriptor,
    artifact: Artifact,
    there: Collection[Descriptor] | None = None,
    *,
    check: bool = False,
) -> Descriptor:
    """Push `artifact` as a referrer of `subject`, unless it is one, and return its manifest's descriptor. Idempotent.

    `there`: the answer of `referrers` a moment ago, so that several are attached after one request. `check`: ask for an
    artifact that is listed, too, and push it again if a part of it is gone.

    With the tag schema, one of two attached to one subject at the same moment can be lost; the specification has no way
    around that.
    """
    config = Descriptor.of(EMPTY, b"{}")
    titled = {TITLE: artifact.title} if artifact.title else {}
    layer = Descriptor.of(artifact.artifact_type, artifact.content, titled)
    manifest = Manifest(config, (layer,), artifact.annotations, MANIFEST, artifact.artifact_type)
    descriptor = replace(
        Descriptor.of(MANIFEST, referring(manifest, subject).to_json()),
        annotations=artifact.annotations,
        artifact_type=artifact.artifact_type,
    )
    if there is None:
        there = referrers_to_extend(storage, subject)
    listed = any(entry.digest == descriptor.digest for entry in there)
    if listed and not (check and any(not storage.exists(each) for each in (descriptor, config, layer))):
        return descriptor
    _send_missing(storage, [(config, b"{}"), (layer, artifact.content)])
    return attach_manifest(storage, subject, manifest)


def _send_missing(storage: Storage, contents: Sequence[tuple[Descriptor, bytes]]) -> None:
    """Push each blob that `storage` lacks, all at once: over a long line, each question and upload is a round trip."""
    from concurrent.futures import ThreadPoolExecutor

    def send(document: Descriptor, content: bytes) -> None:
        if not storage.exists(document):
            storage.push(document, partial(BytesIO, content))

    with ThreadPoolExecutor(len(contents), "lamella-attach") as pool:
        for sent in [pool.submit(send, *each) for each in contents]:
            sent.result()


def attach_manifest(storage: Storage, subject: Descriptor, manifest: Manifest) -> Descriptor:
    """Push `manifest`, whose blobs are in `storage`, as a referrer of `subject`; see `attach`."""
    content = referring(manifest, subject).to_json()
    descriptor = replace(
        Descriptor.of(MANIFEST, content), annotations=manifest.annotations, artifact_type=manifest.artifact_type
    )
    storage.push(descriptor, partial(BytesIO, content))
    # Asked now: some answer that the API does not exist until something is attached.
    if storage.referrers(subject.digest) is None:
        add(storage, subject.digest, descriptor)
    return descriptor


def referring(manifest: Manifest, subject: Descriptor) -> Manifest:
    """Return `manifest` with `subject`, named by type, digest and size alone: its annotations are its index's."""
    return replace(manifest, subject=Descriptor(subject.media_type, subject.digest, subject.size))


def referrers(storage: ReadOnlyStorage, subject: Descriptor, artifact_type: str = "") -> tuple[Descriptor, ...]:
    """The manifests that are attached to `subject`, of one type or of any."""
    found = storage.referrers(subject.digest)
    if found is None:
        found = _tagged(storage, subject.digest)
    return tuple(entry for entry in found if not artifact_type or entry.artifact_type == artifact_type)


def referrers_to_extend(storage: ReadOnlyStorage, subject: Descriptor) -> tuple[Descriptor, ...]:
    """`referrers`, for one who attaches more: a list that the storage has lost counts as empty, and is made anew."""
    try:
        return referrers(storage, subject)
    except NotFound:
        return ()


def content_of(storage: Storage, referrer: Descriptor) -> bytes:
    """The document that `attach` was given."""
    manifest = Manifest.parse(fetch_document(storage, referrer))
    if len(manifest.layers) != 1:
        raise NotFound(f"{referrer.digest} has {len(manifest.layers)} documents, where one is expected")
    return fetch_document(storage, manifest.layers[0])


def title_of(storage: Storage, referrer: Descriptor) -> str:
    """Name of the file of the document that `attach` was given; empty for none."""
    layers = Manifest.parse(fetch_document(storage, referrer)).layers
    return layers[0].annotations.get(TITLE, "") if layers else ""


def annotations_of(storage: ReadOnlyStorage, referrer: Descriptor) -> Mapping[str, str]:
    """What `attach` was given beside the document; read from the manifest where it is listed without."""
    return referrer.annotations or Manifest.parse(fetch_document(storage, referrer)).annotations


def add(storage: Storage, subject: Digest, referrer: Descriptor) -> None:
    """Lists `referrer` under the tag that is made of `subject`, for registries without the API."""
    try:
        there = _tagged(storage, subject)
    except NotFound:
        there = ()
    others = tuple(entry for entry in there if entry.digest != referrer.digest)
    index = Index((*others, referrer)).to_json()
    storage.push(
        Descriptor.of("application/vnd.oci.image.index.v1+json", index),
        partial(BytesIO, index),
        tag=_schema_tag(subject),
    )


def _schema_tag(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"[:128]


def _tagged(storage: ReadOnlyStorage, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        descriptor = storage.resolve(_schema_tag(digest))
    except NotFound:
        return ()
    if descriptor.media_type not in INDEX_TYPES:
        return ()
    return Index.parse(fetch_document(storage, descriptor)).manifests
