"""Frees a store's space: the least recently used first, and never what is leased or held.

A layer was used when an environment with it was: that is when its configuration, one of the documents, was read. To note
it on every layer would take as long as a mount does.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.mounting import claims
from lamella.layers.mounting.kernel import here
from lamella.layers.oci.documents import Digest
from lamella.layers.store import derived, leases, locks
from lamella.layers.store.document_cache import listed_by
from lamella.layers.store.incoming import remove, remove_left
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from lamella.layers.store.store import Store


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layer, document or derived tree of a store: its bytes, when it was last used (seconds since 1970), whether it must stay."""

    path: str
    diff_id: Digest | None
    bytes: int
    used: float
    kept: bool
    made_of: frozenset[Digest] = frozenset()
    """The layers of a derived tree."""


@dataclass(frozen=True, slots=True)
class Freed:
    """What was freed: layers, oldest use first, and the bytes of them, of documents and of derived trees."""

    layers: tuple[Digest, ...]
    bytes: int
    everything_kept: bool = False
    """Whether nothing may go until some command ends, which found the disk full when it began."""

    def __repr__(self) -> str:
        return f"<Freed {counted(len(self.layers), 'layer')}, {size(self.bytes)}>"


def plan(
    items: Iterable[Candidate], *, keep_bytes: int | None, older_than: float | None, now: float
) -> tuple[Candidate, ...]:
    """Which items to free: those unused for more than `older_than` seconds, then the least recently used until the
    rest, kept ones included, has at most `keep_bytes`. Neither limit frees nothing; `keep_bytes=0` all that may go.
    """
    items = sorted(items, key=lambda item: (item.used, item.path))
    total = sum(item.bytes for item in items)
    chosen = []
    for item in items:
        old = older_than is not None and now - item.used > older_than
        large = keep_bytes is not None and total > keep_bytes
        if not item.kept and (old or large):
            chosen.append(item)
            total -= item.bytes
    return tuple(chosen)


def gc(store: Store, *, keep_bytes: int | None = None, older_than: float | None = None, dry_run: bool = False) -> Freed:
    """Remove layers, documents and derived trees as `plan` decides, and the remains of crashed processes.

    `keep_bytes`: the size to shrink to. `older_than`: seconds since the last use. Safe during pulls and mounts: keeps what
    is leased or mounted, and removes the rest atomically. Idempotent. Raises `StoreError`.
    """
    if not os.path.isdir(store.path):
        return Freed((), 0)
    if not dry_run:
        store.prepare()
    with store.explained():
        if dry_run:
            with locks.exclusive(f"{store.path}/lock"):
                busy = leases.everything_is_kept(store)
                chosen = () if busy else _choose(_items(store), keep_bytes, older_than)
        else:
            claims.forget_dead(store, here())
            with Trash(store) as trash, locks.exclusive(f"{store.path}/lock"):
                busy = leases.everything_is_kept(store)
                items = _items(store)
                chosen = () if busy else _choose(items, keep_bytes, older_than)
                for item in chosen:
                    trash.add(item.path)
                _note_use(items, {item.path for item in chosen})
                _remove_unfinished(store)
            _remove_abandoned(store)
    layers = tuple(item.diff_id for item in chosen if item.diff_id)
    return Freed(layers, sum(item.bytes for item in chosen), busy)


class Trash:
    """Where things are renamed to while others are locked out, and removed when they no longer are.

    Removing takes as long as unpacking did; renaming is one step for each. Locked while in use, so that another `gc`
    removes it only after a crash.
    """

    def __init__(self, store: Store) -> None:
        self._path = f"{store.path}/partial/trash-{os.urandom(6).hex()}"
        self._folder = -1
        self._count = 0

    def __enter__(self) -> Trash:  # noqa: PYI034 # typing.Self is newer than Python 3.10
        os.mkdir(self._path, 0o700)
        self._folder = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        locks.try_lock(self._folder)
        return self

    def add(self, path: str) -> None:
        """Renames `path` away; no error where another was faster."""
        self._count += 1
        with contextlib.suppress(FileNotFoundError):
            os.rename(path, f"{self._path}/{self._count}")

    def __exit__(self, *_: object) -> None:
        try:
            remove(self._path)
        finally:
            os.close(self._folder)


def _choose(items: Sequence[Candidate], keep_bytes: int | None, older_than: float | None) -> tuple[Candidate, ...]:
    chosen = plan(items, keep_bytes=keep_bytes, older_than=older_than, now=time.time())
    gone = {item.diff_id for item in chosen if item.diff_id}
    already = {item.path for item in chosen}
    # A tree goes with any of its layers: who damaged or removed one of these would never be found in the copy.
    return (*chosen, *(item for item in items if gone & item.made_of and item.path not in already))


def _items(store: Store) -> list[Candidate]:
    keep = leases.kept(store)
    items = []
    used: dict[Digest, float] = {}
    for algorithm in os.listdir(f"{store.path}/documents"):
        with os.scandir(f"{store.path}/documents/{algorithm}") as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                for diff_id in listed_by(entry.path):
                    used[diff_id] = max(used.get(diff_id, 0), status.st_mtime)
                kept = _named(algorithm, entry.name) in keep
                items.append(Candidate(entry.path, None, status.st_size, status.st_mtime, kept))
    for diff_id in store.layers():
        folder = store.folder(diff_id)
        last = max(os.stat(folder).st_mtime, used.get(diff_id, 0))
        items.append(Candidate(folder, diff_id, store.size(diff_id), last, diff_id in keep))
    for folder in derived.trees(store):
        parts = frozenset(derived.layers(folder))
        kept = bool(parts) and parts <= keep
        items.append(Candidate(folder, None, derived.size(folder), os.stat(folder).st_mtime, kept, parts))
    return items


def _named(algorithm: str, name: str) -> Digest | None:
    try:
        return Digest(algorithm, name)
    except InvalidContent:
        return None


def _note_use(items: Iterable[Candidate], freed: Container[str]) -> None:
    # What said when a layer was used may be among what goes now.
    for item in items:
        if item.diff_id and item.path not in freed and item.used > os.stat(item.path).st_mtime:
            os.utime(item.path, (item.used, item.used))


def _remove_unfinished(store: Store) -> None:
    # Written under the store's lock, which the caller has: their writers are dead.
    for folder, beginning in (("partial", "document-"), ("holds", ".")):
        for name in os.listdir(f"{store.path}/{folder}"):
            if name.startswith(beginning):
                os.unlink(f"{store.path}/{folder}/{name}")


def _remove_abandoned(store: Store) -> None:
    for name in os.listdir(f"{store.path}/partial"):
        path = f"{store.path}/partial/{name}"
        if name.startswith("trash-"):
            remove_left(path)
        elif not name.startswith("document-"):
            _with_lock(store, name.partition("-")[0], path)
    for name in os.listdir(f"{store.path}/locks"):
        _with_lock(store, name)


def _with_lock(store: Store, name: str, left: str = "") -> None:
    """Removes a layer's lock, and what is left of the layer, if no process has it in hand."""
    lock = locks.acquire(f"{store.path}/locks/{name}", wait=False)
    if lock is None:
        return
    try:
        if left:
            remove_left(left)
    finally:
        locks.release(lock, f"{store.path}/locks/{name}")
