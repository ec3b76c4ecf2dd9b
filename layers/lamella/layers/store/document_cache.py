"""Manifests and configs that were pulled, remembered in the store by digest.

With them, a reference that has a digest is read without any request: what a digest names never changes.
"""

from __future__ import annotations

import hashlib
import io
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, NotFound, StoreError
from lamella.layers.hardening.permissions import make_part
from lamella.layers.oci.documents import (
    CONFIG,
    DOCKER_CONFIG,
    INDEX,
    INDEX_TYPES,
    MANIFEST,
    MANIFEST_TYPES,
    MAX_DOCUMENT,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
)
from lamella.layers.oci.parsing import media_type_of, parse_object
from lamella.layers.oci.storage import Reader, VerifiedReader, fetch_document
from lamella.layers.store import locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamella.layers.oci.storage import Storage
    from lamella.layers.store.store import Store

_PARSERS: dict[str, Callable[[bytes], object]] = {
    **dict.fromkeys(MANIFEST_TYPES, Manifest.parse),
    **dict.fromkeys(INDEX_TYPES, Index.parse),
    **dict.fromkeys((CONFIG, DOCKER_CONFIG), ImageConfig.parse),
}


class Remembered:
    """A source whose documents come from the store, and are added to it when they are missing.

    `opened` gives the storage behind it, and is called only if something is asked of that one.
    """

    def __init__(self, store: Store, opened: Callable[[], Storage]) -> None:
        self._store = store
        self._open = opened
        self._storage: Storage | None = None

    def resolve(self, name: str) -> Descriptor:
        """A digest that is remembered, without asking; everything else is asked for."""
        if ":" in name:  # a tag holds none
            digest = Digest.parse(name)
            if (content := _recall(self._store, digest)) and (media_type := _media_type(content)):
                return Descriptor(media_type, digest, len(content))
        return self._behind().resolve(name)

    def tags(self) -> list[str]:
        """Those of the storage."""
        return self._behind().tags()

    def referrers(self, digest: Digest) -> tuple[Descriptor, ...] | None:
        """Those of the storage: attached documents may change."""
        return self._behind().referrers(digest)

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        """A document from the store, remembered if it was not there; any other content from the storage."""
        if descriptor.media_type not in _PARSERS:
            with self._behind().fetch(descriptor) as stream:
                yield stream
            return
        content = _recall(self._store, descriptor.digest)
        if content is None:
            content = fetch_document(self._behind(), descriptor)
            # Before it is kept: a digest that names nonsense must not do so from the store, too.
            _PARSERS[descriptor.media_type](content)
            # Users without the right to write to the store can still run what it holds.
            with suppress(StoreError):
                _remember(self._store, descriptor.digest, content)
        yield VerifiedReader(io.BytesIO(content), descriptor)

    def close(self) -> None:
        """Close the storage if it is open. A later request opens it again."""
        if self._storage is not None:
            self._storage.close()
            self._storage = None

    def _behind(self) -> Storage:
        if self._storage is None:
            self._storage = self._open()
        return self._storage


def listed_by(path: str) -> tuple[Digest, ...]:
    """The diff_ids in the remembered document at `path`, if it is an image configuration; else nothing."""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_DOCUMENT)
        return ImageConfig.parse(content).diff_ids if b'"diff_ids"' in content else ()
    except (OSError, InvalidContent):
        return ()


class Stored:
    """The documents of the store alone, as a `Fetcher`. Reading one does not count as a use."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def fetch(self, descriptor: Descriptor) -> Iterator[Reader]:
        """A document from the store; `NotFound` if it was not pulled."""
        content = _read(self._store, descriptor.digest)
        if content is None:
            raise NotFound(f"{descriptor.digest}: not in the store {self._store.path}")
        yield VerifiedReader(io.BytesIO(content), descriptor)

    def indexes(self) -> Iterator[tuple[Descriptor, Index]]:
        """Every index of the store, in no order."""
        folder = f"{self._store.path}/documents"
        for algorithm in os.listdir(folder) if os.path.isdir(folder) else ():
            for name in os.listdir(f"{folder}/{algorithm}"):
                with suppress(InvalidContent):
                    digest = Digest(algorithm, name)
                    content = _read(self._store, digest)
                    if content and (media_type := _media_type(content)) in INDEX_TYPES:
                        yield Descriptor(media_type, digest, len(content)), Index.parse(content)

    def used(self, digest: Digest) -> float:
        """When a document was last used, in seconds since 1970; 0 if it is not here."""
        try:
            return os.stat(_path(self._store, digest)).st_mtime
        except OSError:
            return 0.0


def _recall(store: Store, digest: Digest) -> bytes | None:
    content = _read(store, digest)
    if content is not None:
        with suppress(OSError):
            os.utime(_path(store, digest))
    return content


def _read(store: Store, digest: Digest) -> bytes | None:
    try:
        with open(_path(store, digest), "rb") as file:
            content = file.read(MAX_DOCUMENT + 1)
    except OSError:
        return None
    # A damaged document is as good as none: it is fetched again.
    return content if hashlib.new(digest.algorithm, content).hexdigest() == digest.hex else None


def _remember(store: Store, digest: Digest, content: bytes) -> None:
    path = _path(store, digest)
    store.prepare()
    # Under the lock, so that `gc`, which has it alone, knows any such file that it finds to be left by a crash.
    with store.explained(), locks.shared(f"{store.path}/partial", f"the store {store.path}", f"{store.path}/lock"):
        make_part(os.path.dirname(path))
        temporary = f"{store.path}/partial/document-{os.urandom(6).hex()}"
        try:
            with open(temporary, "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
            os.rename(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _path(store: Store, digest: Digest) -> str:
    return f"{store.path}/documents/{digest.algorithm}/{digest.hex}"


def _media_type(content: bytes) -> str:
    """The media type of a manifest or index; empty for any other content, which the registry then describes."""
    try:
        document = parse_object(content, "a document of the store")
        return media_type_of(document, INDEX if "manifests" in document else MANIFEST if "layers" in document else "")
    except InvalidContent:
        return ""
