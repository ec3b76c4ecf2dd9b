"""Upload missing blobs, several at once, while other layers are still being built."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from lamella.builder.errors import CacheError
from lamella.layers.errors import InvalidContent
from lamella.layers.oci.documents import Descriptor
from lamella.layers.oci.storage import HashedFile, VerifiedReader, transfer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from lamella.builder.image.documents import Document, Documents
    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.layers.oci.storage import OpenContent, ReadOnlyStorage, Storage
    from lamella.layers.progress.display import Progress

_THREADS = 8
TASK = "upload"


class Uploads:
    """Concurrent uploads to `storage`, each blob once, skipping the digests in `there`."""

    def __init__(self, storage: Storage, there: Iterable[str], progress: Progress) -> None:
        self._storage = storage
        self._there = set(there)
        self._progress = progress
        self._lock = threading.Lock()
        self._futures: list[Future[None]] = []
        self._pool = ThreadPoolExecutor(_THREADS, "lamella-upload")
        self.count = 0
        """Number of blobs uploaded."""
        self.moved = 0
        """Bytes uploaded."""
        self.confirmed: set[str] = set()
        """Digests that the destination had or took."""

    def begin(self) -> None:
        """Show progress, until `wait` returns."""
        self._progress.begin(TASK, None, "B")

    def wait(self) -> None:
        """Wait for every upload. Raise the first error."""
        for future in self._futures:
            future.result()
        self._progress.end(TASK)

    def close(self) -> None:
        """Cancel uploads that have not begun, and wait for the others."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def layer(self, built: BuiltLayer, cache: LayerCache, *, ask: bool = True, hashed: bool = False) -> None:
        """Upload a layer from the cache. `ask`: unless the destination has it. `hashed`: just now, as it was written."""

        def send() -> None:
            path = cache.blob_path(built)
            if path is None:
                raise CacheError(f"layer {built.digest.short}: removed from the cache during the push; push again")
            if not ask or not self._storage.exists(blob(built)):
                self._send(built, partial(HashedFile if hashed else _opened, path), path, cache)

        self._submit(str(built.digest), send)

    def borrowed(self, descriptor: Descriptor, source: ReadOnlyStorage, repository: str) -> None:
        """Copy a base image's layer from `source`, or mount it if `repository` names one of the same registry."""

        def send() -> None:
            if self._storage.exists(descriptor) or (repository and self._storage.mount(descriptor, repository)):
                return
            transfer(source, self._storage, descriptor)
            self._sent(descriptor.size)

        self._submit(str(descriptor.digest), send)

    def document(self, document: Document, *, tag: str = "") -> None:
        """Upload a config, manifest or index in the calling thread."""
        digest = str(document.descriptor.digest)
        with self._lock:
            if digest in self._there | self.confirmed and not tag:
                return
        self._storage.push(document.descriptor, lambda: BytesIO(document.content), tag=tag)
        with self._lock:
            self.moved += document.descriptor.size
            self.confirmed.add(digest)

    def documents(self, documents: Documents) -> None:
        """Upload all documents, each after those that it names, the index without a tag."""
        for together in (documents.configs, documents.manifests):
            for future in [self._pool.submit(self.document, document) for document in together]:
                future.result()
        self.document(documents.index)

    def _send(self, built: BuiltLayer, content: OpenContent, path: str, cache: LayerCache) -> None:
        try:
            self._storage.push(blob(built), content)
        except InvalidContent as error:
            # Registries also refuse for other reasons: read the blob to see whether it is at fault.
            if (damage := _damage(built, path)) is None:
                raise
            cache.forget(built)
            raise CacheError(f"layer {built.digest.short}: damaged in the cache ({damage}); push again") from error
        self._sent(built.size)

    def _submit(self, digest: str, send: Callable[[], None]) -> None:
        with self._lock:
            if digest in self._there:
                return
            self._there.add(digest)
            self._futures.append(self._pool.submit(self._confirming, digest, send))
            failed = [future for future in self._futures if future.done() and future.exception()]
        # A build of minutes stops at its next layer if the registry refuses uploads.
        for future in failed[:1]:
            future.result()

    def _confirming(self, digest: str, send: Callable[[], None]) -> None:
        send()
        with self._lock:
            self.confirmed.add(digest)

    def _sent(self, size: int) -> None:
        with self._lock:
            self.count += 1
            self.moved += size
        self._progress.advance(TASK, size)


def blob(built: BuiltLayer) -> Descriptor:
    """Descriptor of a layer's blob."""
    return Descriptor(built.media_type, built.digest, built.size)


def _damage(built: BuiltLayer, path: str) -> str | None:
    """Reason why the blob at `path` is damaged, or None."""
    try:
        with open(path, "rb") as file:
            reader = VerifiedReader(file, blob(built))
            while reader.read(1 << 20):
                pass
    except InvalidContent as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    return None


def _opened(path: str) -> BinaryIO:
    return open(path, "rb")
