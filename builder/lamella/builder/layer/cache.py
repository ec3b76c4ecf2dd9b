"""Cache of this user's built layers: layer key -> blob, so that nothing is packed or compressed twice.

Folders of `LayerCache.path`: `blobs/sha256/<hex>`, `keys/<2>/<key>.json` (built here),
`keys/<2>/<key>.<hash of a place>.json` (learned there), `notes/<2>/<hash of a name>`, `partial/`. Files
appear complete, by rename: any number of processes use one cache, and the next process removes the
leftovers of a killed one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from lamella.builder.cache_folder import cache_folder, cannot_write
from lamella.builder.errors import CacheError
from lamella.layers.errors import InvalidContent
from lamella.layers.hardening.file_locks import try_lock, wait_for_lock
from lamella.layers.hardening.permissions import make_folders
from lamella.layers.oci.documents import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamella.builder.content.blob import LayerBlob


RECENT = 3600
"""Seconds after its last use for which a file is not freed, since its user may not be done."""


@dataclass(frozen=True, slots=True)
class Learned:
    """Source of a layer that was not built here: a repository or layout that has it under its key."""

    place: str
    """`registry/repository`, or the folder of a layout: its writers are trusted with what the key is."""
    key: str = ""
    """Fingerprint of the public key that signed that index; empty if no signature was checked."""


@dataclass(frozen=True, slots=True)
class BuiltLayer:
    """A built layer, found by its key."""

    digest: Digest
    size: int
    """Bytes of the blob."""
    diff_id: Digest
    unpacked: int
    """Bytes of the files in it."""
    media_type: str
    learned: Learned | None = field(default=None, compare=False)
    """Where it was learned; None if it was built here, from this user's own files."""


class LayerCache:
    """One folder of built layers, created on the first write."""

    def __init__(self, path: str | None = None) -> None:
        self.path = os.path.join(cache_folder(path), "layers")
        self.blobs = os.path.join(self.path, "blobs")
        self.keys = os.path.join(self.path, "keys")
        self.notes = os.path.join(self.path, "notes")
        self._swept = False

    def find(self, key: str, place: str = "") -> BuiltLayer | None:
        """Return the layer of `key` that was built here, else the one learned from `place`, if given.

        Its blob may be elsewhere: see `blob_path`.
        """
        built = self._read(self._key_path(key), built_here=True)
        if built or not place:
            return built
        return self._read(self._key_path(key, place), built_here=False)

    def _read(self, path: str, *, built_here: bool) -> BuiltLayer | None:
        try:
            with open(path, "rb") as stream:
                value = json.loads(stream.read())
                _used(stream.fileno(), os.fstat(stream.fileno()))
            # Records of earlier versions do not say where a layer is from: as good as absent.
            source = value["source"]
            return BuiltLayer(
                Digest.parse(value["digest"]),
                int(value["size"]),
                Digest.parse(value["diff_id"]),
                int(value["unpacked"]),
                str(value["media_type"]),
                None if built_here and source == "built" else Learned(str(source["place"]), str(source["key"])),
            )
        except (FileNotFoundError, ValueError, KeyError, TypeError, InvalidContent):
            return None  # as good as absent: the layer is built again and replaces it
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def blob_path(self, built: BuiltLayer) -> str | None:
        """Path of a layer's blob, or None if it is missing or incomplete."""
        path = self._blob_path(built.digest)
        try:
            seen = os.stat(path)
            _used(path, seen)
            return path if seen.st_size == built.size else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def add(
        self, key: str, media_type: str, write: Callable[[BinaryIO], LayerBlob], learned: Learned | None = None
    ) -> BuiltLayer:
        """Store the blob that `write` writes as the layer of `key`. If `write` raises, nothing is stored.

        `learned`: the source of a bundle with members that were not built here.
        """
        with self._partial() as (stream, path):
            packed = write(stream)
            _finish(stream, path)
            target = self._blob_path(packed.digest)
            make_folders(os.path.dirname(target))
            os.replace(path, target)
        built = BuiltLayer(packed.digest, packed.size, packed.diff_id, packed.unpacked, media_type, learned)
        self.learn(key, built)
        return built

    def learn(self, key: str, built: BuiltLayer) -> None:
        """Remember the layer of `key` without its blob. A learned layer never replaces one built here."""
        learned = built.learned
        value = {
            "source": {"place": learned.place, "key": learned.key} if learned else "built",
            "digest": str(built.digest),
            "size": built.size,
            "diff_id": str(built.diff_id),
            "unpacked": built.unpacked,
            "media_type": built.media_type,
        }
        self._write(self._key_path(key, learned.place if learned else ""), json.dumps(value).encode())

    def forget(self, built: BuiltLayer) -> None:
        """Remove a blob that does not match its digest."""
        with contextlib.suppress(OSError):
            os.unlink(self._blob_path(built.digest))

    def note(self, name: str) -> bytes | None:
        """Content kept under `name`, or None."""
        try:
            with open(self._note_path(name), "rb") as stream:
                _used(stream.fileno(), os.fstat(stream.fileno()))
                return stream.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def keep_note(self, name: str, content: bytes) -> None:
        """Keep a few bytes for later pushes, of this process or another."""
        self._write(self._note_path(name), content)

    def scratch(self) -> str:
        """Folder for unnamed files, on the cache's disk."""
        folder = os.path.join(self.path, "partial")
        try:
            make_folders(folder)
        except OSError as error:
            raise cannot_write(self.path, "the layer cache", error) from None
        return folder

    def _note_path(self, name: str) -> str:
        hashed = hashlib.sha256(name.encode()).hexdigest()
        return os.path.join(self.notes, hashed[:2], hashed)

    def _key_path(self, key: str, place: str = "") -> str:
        suffix = f".{hashlib.sha256(place.encode()).hexdigest()[:16]}" if place else ""
        return os.path.join(self.keys, key[:2], f"{key}{suffix}.json")

    def _blob_path(self, digest: Digest) -> str:
        return os.path.join(self.blobs, digest.algorithm, digest.hex)

    def _write(self, path: str, content: bytes) -> None:
        with self._partial() as (stream, partial):
            stream.write(content)
            _finish(stream, partial)
            make_folders(os.path.dirname(path))
            os.replace(partial, path)

    @contextlib.contextmanager
    def _partial(self) -> Iterator[tuple[BinaryIO, str]]:
        """A new file, locked while it is written; removed at the end unless it was renamed."""
        folder = os.path.join(self.path, "partial")
        try:
            make_folders(folder)
            if not self._swept:
                self._swept = True
                _sweep(folder)
            descriptor, path = _locked(folder)
        except OSError as error:
            raise cannot_write(self.path, "the layer cache", error) from None
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream, path
        except OSError as error:
            # Errors of the environment's files are translated by their readers: this one is the cache's.
            raise cannot_write(self.path, "the layer cache", error) from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)


def _finish(stream: BinaryIO, path: str) -> None:
    """Close a written file, so that it can be renamed: Windows renames no open file. Its age keeps it from a sweep."""
    stream.close()
    os.chmod(path, 0o644)


def _locked(folder: str) -> tuple[int, str]:
    """Make a new file in `folder` and lock it."""
    while True:
        descriptor, path = tempfile.mkstemp(dir=folder)
        wait_for_lock(descriptor)
        # A process that was stopped between the two calls can lose the file to a sweep; the next name is as good.
        if os.fstat(descriptor).st_nlink:
            return descriptor, path
        os.close(descriptor)


def _used(file: str | int, seen: os.stat_result) -> None:
    """Mark a file as used. Often enough for `RECENT`; if the time cannot be set, the cost is a rebuild."""
    if time.time() - seen.st_mtime > RECENT / 2:
        with contextlib.suppress(OSError):
            os.utime(file)


def _sweep(folder: str) -> None:
    """Remove the leftovers of killed processes: unlocked files, unless they are very new."""
    young = time.time() - 60
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):
            if entry.stat().st_mtime > young:
                continue
            with open(entry.path, "rb") as stream:
                if try_lock(stream.fileno()):
                    os.unlink(entry.path)


def _unreadable(path: str, error: OSError) -> CacheError:
    return CacheError(
        f"{path}: the layer cache cannot be read: {error.strerror}; set LAMELLA_CACHE to a folder of your own"
    )
