"""Frees a store's space: the least recently used first, and never what is leased or held."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers import claims, derived, locks
from lamella.layers.kernel import here
from lamella.layers.leases import kept
from lamella.layers.partial import remove, remove_left

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.layers.oci import Digest
    from lamella.layers.store import Store


@dataclass(frozen=True, slots=True)
class Item:
    """One layer or document of a store: its bytes, when it was last used (seconds since 1970), whether it must stay."""

    path: str
    diff_id: Digest | None
    bytes: int
    used: float
    kept: bool


@dataclass(frozen=True, slots=True)
class Freed:
    """What was freed: layers, oldest use first, and the bytes of them and of documents."""

    layers: tuple[Digest, ...]
    bytes: int


def plan(items: Iterable[Item], *, keep_bytes: int | None, older_than: float | None, now: float) -> tuple[Item, ...]:
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
    """Frees layers and documents as `plan` says, and whatever crashed processes left behind.

    Safe beside any number of pulls and mounts: what is freed is renamed away while nobody can lease, so it is there
    as a whole or not at all. Raises `StoreError`.
    """
    if not os.path.isdir(store.path):
        return Freed((), 0)
    if not dry_run:
        store.prepare()
    with store.explained():
        if not dry_run:
            claims.forget_dead(store, here())
        if dry_run:
            with locks.exclusive(f"{store.path}/lock"):
                chosen = _choose(store, keep_bytes, older_than)
        else:
            with Trash(store) as trash, locks.exclusive(f"{store.path}/lock"):
                chosen = _choose(store, keep_bytes, older_than)
                for item in chosen:
                    trash.add(item.path)
                for path in derived.made_of(store, (item.diff_id for item in chosen if item.diff_id)):
                    trash.add(path)
                _remove_unfinished(store)
            _remove_abandoned(store)
    return Freed(tuple(item.diff_id for item in chosen if item.diff_id), sum(item.bytes for item in chosen))


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


def _choose(store: Store, keep_bytes: int | None, older_than: float | None) -> tuple[Item, ...]:
    return plan(_items(store), keep_bytes=keep_bytes, older_than=older_than, now=time.time())


def _items(store: Store) -> Iterator[Item]:
    keep = kept(store)
    for diff_id in store.layers():
        folder = store.folder(diff_id)
        yield Item(folder, diff_id, store.size(diff_id), os.stat(folder).st_mtime, diff_id in keep)
    for algorithm in os.listdir(f"{store.path}/documents"):
        with os.scandir(f"{store.path}/documents/{algorithm}") as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                yield Item(entry.path, None, status.st_size, status.st_mtime, kept=False)


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
