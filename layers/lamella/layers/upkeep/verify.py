"""Checks a store against its diff_ids: each layer's tar is made again from its tree and its skeleton, and hashed.

So nothing in a store has to be believed: a change of a file, its mode or the skeleton changes the hash, or is found by
comparison. Damaged layers are removed, and the next pull brings them back. See docs/adr/the-store.md.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, UnsafeLayer
from lamella.layers.progress.display import Progress, Silent
from lamella.layers.store import derived, leases
from lamella.layers.tar.reader import BLOCK, Archive, Entry, shown
from lamella.layers.text import counted
from lamella.layers.upkeep.gc import Trash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamella.layers.oci.documents import Digest
    from lamella.layers.store.store import Store

_TASK = "verify"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged layer, the reason, and whether it was removed (not while it is mounted or leased)."""

    diff_id: Digest | None
    """None for a tree that was made of layers."""
    reason: str
    removed: bool
    tree: str = ""
    """The folder of such a tree in the store."""


@dataclass(frozen=True, slots=True)
class Verified:
    """How many layers were looked at, and those that are not what their diff_id says; trees made of them as well."""

    layers: int
    damaged: tuple[Damage, ...]

    def __repr__(self) -> str:
        return f"<Verified {counted(self.layers, 'layer')}: {len(self.damaged)} damaged>"


def verify(
    store: Store, *, diff_ids: Iterable[Digest] | None = None, remove: bool = True, progress: Progress | None = None
) -> Verified:
    """Read each file of each layer in `store` (or of `diff_ids`) and of the trees made of them, and compare the hashes.

    `remove`: remove damaged layers that are not in use; the next pull brings them back. Raises `StoreError` if the store
    can't be read or changed.
    """
    from concurrent.futures import ThreadPoolExecutor

    progress = progress or Silent()
    if not store.is_made():
        return Verified(0, ())
    wanted = tuple(sorted(store.layers() if diff_ids is None else diff_ids))
    with leases.lease(store, wanted, "verify"):
        there = [diff_id for diff_id in wanted if store.has(diff_id)]
        progress.begin(_TASK, sum(store.size(diff_id) for diff_id in there), "B")

        def check(diff_id: Digest) -> str:
            return _check(store, diff_id, lambda size: progress.advance(_TASK, size))

        try:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                reasons = {
                    diff_id: reason for diff_id, reason in zip(there, pool.map(check, there), strict=True) if reason
                }
        finally:
            progress.end(_TASK)
        looked_at = frozenset(there)
        # One that is gone by now was freed meanwhile, or made and freed.
        trees = {
            folder: reason
            for folder in derived.trees(store)
            if (diff_ids is None or derived.layers(folder) <= looked_at)
            and (reason := derived.damage(folder))
            and os.path.isdir(folder)
        }
    removed = _remove(store, reasons, trees) if remove and (reasons or trees) else frozenset()
    return Verified(
        len(there),
        (
            *(Damage(diff_id, reason, store.folder(diff_id) in removed) for diff_id, reason in reasons.items()),
            *(Damage(None, reason, folder in removed, folder) for folder, reason in trees.items()),
        ),
    )


def _remove(store: Store, damaged: Iterable[Digest], trees: Iterable[str]) -> frozenset[str]:
    """The folders that were removed."""
    with store.explained(), Trash(store) as trash, leases.paused(store, "verify"):
        parts = {folder: derived.layers(folder) for folder in trees}
        keep = leases.kept(store, (*damaged, *(diff_id for made_of in parts.values() for diff_id in made_of)))
        layers = frozenset(damaged) - keep.keys()
        unused = [folder for folder, made_of in parts.items() if not made_of or not made_of <= keep.keys()]
        gone = {*map(store.folder, layers), *unused, *derived.made_of(store, layers)}
        for path in gone:
            trash.add(path)
    return frozenset(gone)


def _check(store: Store, diff_id: Digest, advance: Callable[[int], None]) -> str:
    """Return the damage of a layer; empty if it is whole."""
    import zstandard

    tree = os.fsencode(store.layer_path(diff_id))
    digest = hashlib.new(diff_id.algorithm)
    paths = {b""}
    try:
        with open(f"{store.folder(diff_id)}/skeleton", "rb") as file:
            archive = Archive(zstandard.ZstdDecompressor().stream_reader(file), skeleton=True)
            for entry in archive:
                digest.update(archive.raw)
                _add_with_parents(paths, entry.path)
                if reason := _compare(tree, entry):
                    return reason
                if entry.kind == "file":
                    _hash_file(os.path.join(tree, entry.path), entry, digest.update)
                    advance(entry.size)
            digest.update(archive.raw)
        if foreign := _foreign(tree, paths):
            return f"{shown(foreign)} is not in its tar"
    except (InvalidContent, UnsafeLayer, zstandard.ZstdError) as error:
        return f"its skeleton is damaged: {error}"
    except OSError as error:
        return f"it can't be read: {error.strerror} ({os.fsdecode(error.filename or tree)})"
    if digest.hexdigest() != diff_id.hex:
        return f"its files were changed: they make {digest.name}:{digest.hexdigest()}"
    return ""


def _compare(tree: bytes, entry: Entry) -> str:
    path = os.path.join(tree, entry.path) if entry.path else tree
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return f"{shown(entry.path)} is missing"
    if entry.kind == "symlink":
        right = stat.S_ISLNK(status.st_mode) and os.readlink(path) == entry.link
    elif entry.kind == "folder":
        right = stat.S_ISDIR(status.st_mode) and _has_mode(path, status, 0o755)
    elif entry.kind == "file":
        mode = 0o755 if entry.executable else 0o644
        right = stat.S_ISREG(status.st_mode) and status.st_size == entry.size and _has_mode(path, status, mode)
    else:
        right = os.path.samestat(status, os.lstat(os.path.join(tree, entry.link)))
    return "" if right else f"{shown(entry.path)} is not the {entry.kind} that its tar has"


def _has_mode(path: bytes, status: os.stat_result, mode: int) -> bool:
    """Whether a file or folder, not a link, has the mode, or has another one that the file system imposes."""
    found = stat.S_IMODE(status.st_mode)
    if found == mode or os.geteuid() not in (0, status.st_uid):
        return found == mode
    try:
        os.chmod(path, mode)
        if stat.S_IMODE(os.lstat(path).st_mode) != mode:
            return True
        os.chmod(path, found)
    except PermissionError:
        return True
    except OSError:  # a read-only disk
        return False
    return False


def _hash_file(path: bytes, entry: Entry, update: Callable[[bytes], None]) -> None:
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while piece := os.read(file, _PIECE):
            update(piece)
    finally:
        os.close(file)
    update(bytes(-entry.size % BLOCK))


def _add_with_parents(paths: set[bytes], path: bytes) -> None:
    while path not in paths:
        paths.add(path)
        path = path.rpartition(b"/")[0]


def _foreign(tree: bytes, paths: set[bytes]) -> bytes:
    """The first path of the tree that the tar does not have; empty if there is none."""
    start = len(tree) + 1
    todo = [tree]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.path[start:] not in paths:
                    return entry.path[start:]
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return b""
