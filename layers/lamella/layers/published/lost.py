"""Content that a reference names and its registry or layout has lost: which, and how to restore it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from lamella.layers.errors import NotFound
from lamella.layers.oci.annotations import PACKAGE, VERSION
from lamella.layers.oci.documents import CONFIG, MANIFEST
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.documents import Descriptor, Digest
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Reader, ReadOnlyStorage

_DOCUMENTS = {MANIFEST: "its manifest", CONFIG: "its config"}


class NamingLost:
    """`source`, whose fetches name lost content as part of `reference`: a parent is there, and its child is not."""

    def __init__(self, source: ReadOnlyStorage, reference: Reference) -> None:
        self._source = source
        self._reference = reference

    def resolve(self, name: str) -> Descriptor:
        """See `Resolver`."""
        return self._source.resolve(name)

    def tags(self) -> list[str]:
        """See `Resolver`."""
        return self._source.tags()

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """See `ReadOnlyStorage`."""
        return self._source.referrers(digest)

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        """See `Fetcher`. Raises `NotFound` with the package or document that is lost, and the command that restores it."""
        try:
            with self._source.fetch(descriptor) as stream:
                yield stream
        except NotFound as error:
            raise NotFound(self._message(descriptor)) from error

    def _message(self, descriptor: Descriptor) -> str:
        reference, annotations = self._reference, descriptor.annotations
        part = _DOCUMENTS.get(descriptor.media_type, "a layer")
        if PACKAGE in annotations:
            package = f"{annotations[PACKAGE]} {annotations.get(VERSION, '')}"
            part = f"package {escaped(package.rstrip(), 100)}"
        lost = f"{reference}: {part} is lost ({descriptor.digest})"
        target = str(reference).partition("@")[0] if reference.tag else "REFERENCE"
        return f"{lost}; restore it from the environment with lamella push {target}"
