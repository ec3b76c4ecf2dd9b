"""Check that a reference is whole: every manifest, config and blob there, with its size and digest.

One validator for any storage. It reads the documents and asks for each blob; `deep` reads the blobs too, and compares
each layer with its diff_id. Source of the idea: go-containerregistry, pkg/v1/validate.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, LayersError, NotFound, SignatureError, StoreError, UnsafeLayer
from lamella.layers.oci.annotations import IMAGE, PACKAGE, TITLE, VERSION
from lamella.layers.oci.documents import (
    CONFIG,
    DOCKER_CONFIG,
    INDEX_TYPES,
    LAYER_TAR,
    ImageConfig,
    Layer,
    Manifest,
    layers_of,
)
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.progress.display import Silent
from lamella.layers.published.tree import attached, walk
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign
from lamella.layers.storages import open_storage
from lamella.layers.tar.decompress import LAYER_TYPES, DiffReader, decompressed, expansion_limit
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Descriptor, Digest
    from lamella.layers.oci.storage import Storage
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.tree import Document

_THREADS = 8
_PIECE = 1 << 20
_TASK = "verify"
_WRONG = (NotFound, InvalidContent, UnsafeLayer, StoreError)
"""Errors of one document or blob. Others, such as a registry that is down, end the check."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One document or blob that is missing or not what it should be."""

    digest: Digest
    what: str
    """Its place: `index`, `image linux/amd64`, `package manifest`, `config`, `layer of idna 3.10`, or an attached type."""
    reason: str


@dataclass(frozen=True, slots=True)
class VerifiedReference:
    """Result of a check of a reference: its extent, and the faults."""

    reference: str
    """Pinned to the digest that was checked."""
    documents: int
    """Manifests and indexes that were read, attached ones too."""
    blobs: int
    """Configs, layers and attached files that were asked for."""
    bytes: int
    """Size of those."""
    faults: tuple[Fault, ...]
    heal: str
    """The commands that repair it; empty if it is whole."""

    def __repr__(self) -> str:
        what = f"{counted(self.documents, 'document')}, {counted(self.blobs, 'blob')}, {size(self.bytes)}"
        return f"<VerifiedReference {self.reference}: {what}; {counted(len(self.faults), 'fault')}>"


def verify_reference(
    reference: str, *, deep: bool = False, trust: Trust = Trust(), progress: Progress | None = None
) -> VerifiedReference:
    """Check everything that `reference` names, with each platform and everything attached, in the registry or layout.

    Reads all manifests and configs, and asks for each blob; `deep`: read the blobs as well, and compare their digests and
    diff_ids. A missing signature is a fault if `trust` or this machine's policy requires one. Never asks mirrors. Raises
    `InvalidReference`, `NotFound` if the tag itself is missing, `Denied`, `Unreachable`.
    """
    parsed = Reference.parse(reference)
    cosign.check_keys(trust)
    with closing(open_storage(parsed, trust, mirrors=False)) as storage:
        root = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag)
        found = _Check(storage, deep=deep, progress=progress or Silent())
        found.tree(root)
        try:
            cosign.require(storage, parsed, root.digest, trust)
        except SignatureError as error:
            found.faults.append(Fault(root.digest, "signature", str(error)))
    pinned = str(parsed.at(root.digest))
    heal = _heal(parsed, found) if found.faults else ""
    blobs = found.seen.values()
    total = sum(blob.size for blob in blobs)
    return VerifiedReference(pinned, found.documents, len(blobs), total, tuple(found.faults), heal)


def validate(storage: Storage, root: Descriptor, *, deep: bool = False) -> tuple[Fault, ...]:
    """Return the faults of the tree of `root` in `storage`, and of all its attachments."""
    check = _Check(storage, deep=deep, progress=Silent())
    check.tree(root)
    return tuple(check.faults)


class _Check:
    """One check, and what it found."""

    def __init__(self, storage: Storage, *, deep: bool, progress: Progress) -> None:
        self._storage = storage
        self._deep = deep
        self._progress = progress
        self.documents = 0
        self.faults: list[Fault] = []
        self.seen: dict[Digest, Descriptor] = {}
        self.corrupt: set[Digest] = set()
        """Blobs that are there with other content."""
        self._layers: dict[Digest, Layer] = {}
        self._names: dict[Digest, str] = {}

    def tree(self, root: Descriptor) -> None:
        def unlisted(subject: Descriptor, error: LayersError) -> None:
            self.faults.append(Fault(subject.digest, f"documents attached to the {_kind(subject)}", str(error)))

        documents = self._documents(root, "")
        for each in attached(self._storage, documents, unlisted) if documents else ():
            self._documents(each.descriptor, escaped(each.descriptor.artifact_type, 100) or "signature")
        blobs = sorted(self.seen.values(), key=lambda blob: -blob.size)
        self._progress.begin(_TASK, sum(blob.size for blob in blobs), "B")
        threads = ThreadPoolExecutor(_THREADS, "lamella-verify")
        try:
            reasons = list(threads.map(self._blob, blobs))
        finally:
            # After a failure nothing new begins.
            threads.shutdown(cancel_futures=True)
            self._progress.end(_TASK)
        self.faults += [
            Fault(blob.digest, self._names[blob.digest], reason)
            for blob, reason in zip(blobs, reasons, strict=True)
            if reason
        ]

    def _documents(self, root: Descriptor, kind: str) -> list[Document]:
        """Read the documents below `root`, and note their blobs. `kind` names an attached tree."""

        def failed(descriptor: Descriptor, error: LayersError) -> None:
            self._fault(descriptor, kind or _kind(descriptor), error)

        documents = list(walk(self._storage, root, failed))
        for document in documents:
            if document.descriptor.media_type in INDEX_TYPES:
                continue
            manifest = Manifest.parse(document.content)
            self._note(manifest.config, (kind and f"config of {kind}") or "config")
            for layer in manifest.layers:
                self._note(layer, kind or _layer_name(layer))
            if manifest.config.media_type in (CONFIG, DOCKER_CONFIG):
                self._config(manifest, kind)
        self.documents += len(documents)
        return documents

    def _note(self, blob: Descriptor, name: str) -> None:
        known = self.seen.setdefault(blob.digest, blob)
        self._names.setdefault(blob.digest, name)
        if known.size != blob.size:
            self.faults.append(Fault(blob.digest, name, f"named with {known.size} bytes and with {blob.size} bytes"))

    def _config(self, manifest: Manifest, kind: str) -> None:
        """Compare the manifest's layers with the diff_ids of its config."""
        try:
            config = ImageConfig.parse(fetch_document(self._storage, manifest.config))
            # Signatures and attestations are images of other layers, whose diff_ids have no meaning.
            if not all(layer.media_type in LAYER_TYPES for layer in manifest.layers):
                return
            layers = layers_of(manifest, config)
        except _WRONG as error:
            if not isinstance(error, NotFound):  # a missing one is found with the other blobs
                self._fault(manifest.config, (kind and f"config of {kind}") or "config", error)
            return
        for layer in layers:
            known = self._layers.setdefault(layer.descriptor.digest, layer)
            plain = layer.descriptor.media_type == LAYER_TAR
            if known.diff_id != layer.diff_id or (plain and layer.diff_id != layer.descriptor.digest):
                name = self._names[layer.descriptor.digest]
                right = layer.descriptor.digest if plain else known.diff_id
                self.faults.append(
                    Fault(manifest.config.digest, "config", f"diff_id of {name} is {layer.diff_id}, not {right}")
                )

    def _blob(self, blob: Descriptor) -> str:
        """Why a blob is wrong; an empty string if it is not."""
        try:
            # One of another size counts as absent: reading it gives the reason.
            if self._deep or not self._storage.exists(blob):
                self._read(blob)
        except NotFound:
            return "missing"
        except _WRONG as error:
            self.corrupt.add(blob.digest)
            return escaped(str(error), 500)
        self._progress.advance(_TASK, blob.size)
        return ""

    def _read(self, blob: Descriptor) -> None:
        with self._storage.fetch(blob) as stream:
            layer = self._layers.get(blob.digest)
            if layer is None or layer.descriptor.media_type == LAYER_TAR:
                while stream.read(_PIECE):
                    pass
                return
            content = DiffReader(decompressed(stream, blob.media_type), layer.diff_id, expansion_limit(blob))
            while content.read(_PIECE):
                pass
            content.check()
            # The stream compares the blob's digest at its end alone.
            if stream.read(1):
                raise InvalidContent("bytes follow the end of its compressed stream")

    def _fault(self, descriptor: Descriptor, what: str, error: LayersError) -> None:
        reason = "missing" if isinstance(error, NotFound) else escaped(str(error), 500)
        if not isinstance(error, NotFound):
            self.corrupt.add(descriptor.digest)
        self.faults.append(Fault(descriptor.digest, what, reason))


def _kind(descriptor: Descriptor) -> str:
    if IMAGE in descriptor.annotations:
        return "package manifest"
    noun = "index" if descriptor.media_type in INDEX_TYPES else "image"
    return f"{noun} {escaped(str(descriptor.platform), 100)}" if descriptor.platform else noun


def _layer_name(layer: Descriptor) -> str:
    notes = layer.annotations
    if PACKAGE in notes:
        return escaped(f"layer of {notes[PACKAGE]} {notes.get(VERSION, '')}".rstrip(), 200)
    return escaped(notes.get(TITLE) or f"layer of type {layer.media_type}", 200)


def _heal(reference: Reference, found: _Check) -> str:
    name = str(replace(reference, digest=None)) if reference.tag else f"{str(reference).partition('@')[0]}:TAG"
    again = f"push it again from its environment with lamella push {name}, or copy a whole one with lamella copy SOURCE {name}"
    # A layout keeps a file of the right size: only these bytes show that it is another.
    files = sorted(f"{reference.folder}/blobs/{each.algorithm}/{each.hex}" for each in found.corrupt)
    if reference.is_layout and files:
        return f"remove {' '.join(files)}; then {again}"
    return again
