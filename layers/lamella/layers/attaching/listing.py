"""The artifacts attached to a reference: each artifact with its type, files and annotations, read without the files."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidArgument, InvalidContent, NotFound
from lamella.layers.oci.annotations import PLATFORM, TITLE
from lamella.layers.oci.documents import INDEX_TYPES, Index, Manifest
from lamella.layers.oci.parsing import media_type_of
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import referrers
from lamella.layers.oci.storage import fetch_document
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import sigstore
from lamella.layers.storages import open_storage
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.layers.oci.documents import Descriptor, Digest
    from lamella.layers.oci.storage import ReadOnlyStorage

FINDINGS = "application/vnd.lamella.findings.v1+json"
SBOM = "application/vnd.cyclonedx+json"
LOCK = "application/vnd.lamella.lock.v1"
"""A lock file of the packages: pixi.lock or pylock.toml, by its file name."""
_KINDS = {FINDINGS: "findings", SBOM: "bill of materials", LOCK: "lock"}
MOST = 1000
"""Artifacts of one reference that are read, a request each: everyone with the right to push can attach more."""
_THREADS = 8


@dataclass(frozen=True, slots=True)
class ArtifactFile:
    """One file of an artifact."""

    name: str
    """As its publisher wrote it: not yet checked. Its digest if it has none."""
    media_type: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class AttachedArtifact:
    """Something attached to an index or to one of its images."""

    artifact_type: str
    descriptor: Descriptor
    """Its manifest's."""
    platform: str
    """Of the image that it is attached to or describes; empty for the index as a whole."""
    files: tuple[ArtifactFile, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    """Why its manifest could not be read; empty if it was."""

    @property
    def digest(self) -> Digest:
        """Its manifest's digest."""
        return self.descriptor.digest

    @property
    def kind(self) -> str:
        """`findings`, `bill of materials`, `lock`, `signature` or `artifact`."""
        bundle = any(file.media_type.startswith(sigstore.MEDIA_TYPE) for file in self.files)
        return "signature" if bundle else _KINDS.get(self.artifact_type, "artifact")

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files)

    def __repr__(self) -> str:
        what = f"{counted(len(self.files), 'file')}, {size(self.size)}"
        return f"<AttachedArtifact {escaped(self.artifact_type, 100)} {self.digest.short}: {what}>"


def artifacts(reference: str, artifact_type: str = "", *, trust: Trust = Trust()) -> tuple[AttachedArtifact, ...]:
    """List the artifacts attached to `reference` and to its images, of one type or of any, sorted by type and digest.

    Bills of materials, findings and bundles of signatures are attached as well, and listed; signatures under cosign's tags
    are not. Raises `InvalidReference`, `NotFound`, `InvalidContent` for more than 1,000, `Denied`, `Unreachable`.
    """
    parsed = Reference.parse(reference)
    if artifact_type:
        check_type(artifact_type)
    with closing(open_storage(parsed, trust)) as storage:
        root = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag)
        return attached_to(storage, root, artifact_type)


def check_type(artifact_type: str) -> None:
    """Raise `InvalidArgument` unless `artifact_type` is a media type."""
    try:
        media_type_of({"mediaType": artifact_type})
    except InvalidContent:
        name = escaped(artifact_type, 100)
        raise InvalidArgument(f"--type {name}: not a media type; write it as application/vnd.example") from None


def attached_to(storage: ReadOnlyStorage, root: Descriptor, artifact_type: str = "") -> tuple[AttachedArtifact, ...]:
    """List the artifacts attached to `root` in `storage`, as `artifacts` does."""
    subjects = [(root, "")]
    if root.media_type in INDEX_TYPES:
        children = {entry.digest: entry for entry in Index.parse(fetch_document(storage, root)).manifests}
        subjects += [(entry, str(entry.platform or "unknown")) for entry in children.values()]
    if len(subjects) > MOST:
        raise InvalidContent(f"{root.digest}: an index of {len(subjects) - 1:,} images; at most {MOST:,} are read")
    with ThreadPoolExecutor(_THREADS, "lamella-artifacts") as pool:
        listed = list(pool.map(lambda each: referrers(storage, each[0]), subjects))
        found = [
            (referrer, platform)
            for (_, platform), of_one in zip(subjects, listed, strict=True)
            for referrer in {entry.digest: entry for entry in of_one}.values()
        ]
        if len(found) > MOST:
            raise InvalidContent(f"{root.digest}: {len(found):,} artifacts are attached; at most {MOST:,} are read")
        read = pool.map(lambda each: _read(storage, *each), found)
        every = [each for each in read if not artifact_type or each.artifact_type == artifact_type]
    return tuple(sorted(every, key=lambda each: (each.artifact_type, each.platform, each.digest)))


def _read(storage: ReadOnlyStorage, referrer: Descriptor, platform: str) -> AttachedArtifact:
    try:
        if referrer.media_type in INDEX_TYPES:
            raise InvalidContent(f"{referrer.digest}: an index, which has no files")
        manifest = Manifest.parse(fetch_document(storage, referrer))
    except (InvalidContent, NotFound) as error:
        kind = referrer.artifact_type
        return AttachedArtifact(kind, referrer, platform, annotations=referrer.annotations, error=str(error))
    # distribution-spec v1.1, "Listing Referrers": without an artifactType, the type of the config stands for it.
    kind = manifest.artifact_type or manifest.config.media_type
    about = manifest.annotations
    return AttachedArtifact(kind, referrer, platform or about.get(PLATFORM, ""), files_of(manifest), about)


def files_of(manifest: Manifest) -> tuple[ArtifactFile, ...]:
    """Return the files of an artifact's manifest, in its order."""
    return tuple(
        ArtifactFile(layer.annotations.get(TITLE) or layer.digest.hex, layer.media_type, layer.size, layer.digest)
        for layer in manifest.layers
    )
