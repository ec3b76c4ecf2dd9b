"""A layer on its way into the store: claimed by one process, unpacked beside its final name, synced, renamed."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, StoreError, UnsafeLayer
from lamella.layers.hardening.permissions import make_part
from lamella.layers.oci.annotations import PACKAGE, UNPACKED, VERSION
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.store import locks
from lamella.layers.tar.decompress import DiffReader, decompressed, expansion_limit
from lamella.layers.tar.unpack import Bounds, Unpacked, ensure_mode, unpack

if sys.platform != "win32":  # imported there by programs that push, and not used
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.oci.documents import Digest, Layer
    from lamella.layers.oci.storage import Reader
    from lamella.layers.store.store import Store


class Claim:
    """One process's right to bring one layer into the store, until `close`."""

    __slots__ = ("_lock", "_lock_path", "diff_id", "path")

    def __init__(self, diff_id: Digest, path: str, lock: int, lock_path: str) -> None:
        self.diff_id = diff_id
        self.path = path
        """The folder to unpack in: `receive` makes it, `commit` renames it."""
        self._lock = lock
        self._lock_path = lock_path

    def touch(self) -> None:
        """Show processes that wait for the layer that this one makes progress."""
        os.utime(self._lock)

    def close(self) -> None:
        """Remove the unpacked files unless they are committed, and let others have the layer."""
        try:
            remove(self.path)
        finally:
            locks.release(self._lock, self._lock_path)


def claim(store: Store, diff_id: Digest, owner: str = "pull") -> Claim | None:
    """Return the right to bring the layer, which may be here by now; None if another process has it.

    Removes the remains of crashed processes. `owner`: the work, for messages of processes that wait.
    """
    with store.explained():
        path = lock_path(store, diff_id)
        lock = locks.try_acquire(path, owner)
        if lock is None:
            return None
        try:
            for name in os.listdir(f"{store.path}/partial"):
                if name.startswith(diff_id.hex):
                    remove_left(f"{store.path}/partial/{name}")
        except BaseException:
            locks.release(lock, path)
            raise
        return Claim(diff_id, f"{store.path}/partial/{diff_id.hex}-{os.urandom(6).hex()}", lock, path)


def lock_path(store: Store, diff_id: Digest) -> str:
    """The file that a process which brings the layer keeps locked."""
    return f"{store.path}/locks/{diff_id.hex}"


def receive(stream: Reader, layer: Layer, path: str, prefix: str = "") -> Unpacked:
    """Unpack the blob in `stream` to `path`, verified; errors name the layer. Needs no store: a worker can do it.

    `prefix`: the image prefix, which the layer must not leave.
    """
    import zstandard

    os.mkdir(path, 0o700)
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # A worker can outlive its pull: marks the folder as in use for as long as it writes.
        fcntl.flock(folder, fcntl.LOCK_SH)
        os.mkdir("tree", 0o755, dir_fd=folder)
        tree = os.open("tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
        try:
            ensure_mode(tree, 0o755)
            content = DiffReader(
                decompressed(stream, layer.descriptor.media_type), layer.diff_id, expansion_limit(layer.descriptor)
            )
            bounds = Bounds(prefix, bounded_decimal(layer.descriptor.annotations.get(UNPACKED)))
            with open(f"{path}/skeleton", "xb") as file:
                os.fchmod(file.fileno(), 0o644)
                with zstandard.ZstdCompressor(level=1).stream_writer(file, closefd=False) as skeleton:
                    unpacked = unpack(content, tree, skeleton, bounds)
                kept = file.tell()
            content.check()
            if stream.read(1):
                raise InvalidContent("bytes follow the end of its compressed stream")
        finally:
            os.close(tree)
        with open(f"{path}/layer.json", "x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), 0o644)
            json.dump({"bytes": unpacked.bytes + kept, "entries": unpacked.entries}, file)
        os.fchmod(folder, 0o755)
    except (InvalidContent, UnsafeLayer) as error:
        raise type(error)(f"cannot unpack layer {named(layer)}: {error}") from error
    except StoreError as error:
        store = os.path.dirname(os.path.dirname(path))
        raise StoreError(f"the store {store}: {error}; set LAMELLA_STORE to another disk") from error
    finally:
        os.close(folder)
    return unpacked


def commit(store: Store, claims: Sequence[Claim]) -> None:
    """Make unpacked layers part of the store, all synced at once, each renamed by itself."""
    with store.explained():
        # One syncfs for many layers: fsync takes a millisecond for each file, half a minute for an environment.
        sync(f"{store.path}/partial")
        for claimed in claims:
            final = store.folder(claimed.diff_id)
            make_part(os.path.dirname(final))
            os.rename(claimed.path, final)


def named(layer: Layer) -> str:
    """A layer for a message: its package where it says one, and its digest's beginning."""
    annotations = layer.descriptor.annotations
    package = " ".join(filter(None, (annotations.get(PACKAGE, ""), annotations.get(VERSION, ""))))
    digest = f"{layer.descriptor.digest.algorithm}:{layer.descriptor.digest.short}"
    return f"{package} ({digest})" if package else digest


def remove_left(path: str) -> bool:
    """Remove a folder in `partial` unless a process still writes to it; False if one does."""
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return True
    try:
        if not locks.try_lock(folder):
            return False
        remove(path)
    finally:
        os.close(folder)
    return True


def remove(path: str) -> None:
    """Remove a folder and its content. Idempotent."""
    import shutil

    # Another process may remove it too. `onerror` is deprecated since Python 3.12, which has `onexc`.
    if sys.version_info >= (3, 12):
        shutil.rmtree(path, onexc=lambda _, __, error: _pass_over(error))
    else:
        shutil.rmtree(path, onerror=lambda _, __, info: _pass_over(info[1]))


def _pass_over(error: BaseException) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def sync(path: str) -> None:
    """Wait until everything written to the file system of `path` is on its disk. Linux's syncfs(2), else sync(2)."""
    import ctypes

    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(folder) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(folder)
