"""Frees a store's space: the least recently used first, and no layer that is leased or held.

A layer was used when an environment with it was: that is when its configuration, one of the documents, was read. To note
it on every layer would take as long as a mount does.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.hardening.permissions import user_name
from lamella.layers.mounting import claims, former
from lamella.layers.mounting.kernel import here
from lamella.layers.oci.documents import Digest
from lamella.layers.store import derived, leases, locks, names
from lamella.layers.store.document_cache import listed_by
from lamella.layers.store.incoming import remove, remove_left
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable, Sequence

    from lamella.layers.store.store import Store

_TRASH = "trash-"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layer, document or derived tree of a store: its bytes, when it was last used (seconds since 1970), whether it must stay."""

    path: str
    diff_id: Digest | None
    bytes: int
    used: float
    kept: bool
    made_of: frozenset[Digest] = frozenset()
    """The layers of a derived tree; empty for anything else."""
    user: str = ""
    """A process or mount that keeps it."""


@dataclass(frozen=True, slots=True)
class Freed:
    """The freed layers, oldest use first, and the bytes of layers, documents and derived trees."""

    layers: tuple[Digest, ...]
    bytes: int
    in_use: tuple[str, ...] = ()
    """Processes and mounts that keep layers which would have been freed."""

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


def gc(
    store: Store,
    *,
    keep_bytes: int | None = None,
    older_than: float | None = None,
    among: Collection[Digest] | None = None,
    dry_run: bool = False,
) -> Freed:
    """Remove layers, documents and derived trees as `plan` decides, and the remains of crashed processes.

    `keep_bytes`: the size to shrink to. `older_than`: seconds since the last use. `among`: the diff_ids of layers and the
    digests of documents to consider, with the trees made of these layers; None for all that the store holds. Safe during pulls and mounts: keeps leased
    and mounted layers, and removes the rest atomically. Idempotent. Raises `StoreError`.
    """
    if not store.is_made():
        return Freed((), 0)
    if dry_run:
        with store.explained():
            items = _among(store, candidates(store), among)
        chosen = _choose(items, keep_bytes, older_than)
    else:
        store.prepare()
        with store.explained():
            claims.forget_dead(store, here())
            former.release_unused(store)
            with Trash(store) as trash:
                with leases.paused(store, "gc"):
                    items = _among(store, candidates(store), among)
                    chosen = _choose(items, keep_bytes, older_than)
                    _note_use(items, {item.path for item in chosen})
                    for item in chosen:
                        trash.add(item.path)
                    names.forget(store)
                    _remove_unfinished(store)
                trash.empty()
            _remove_abandoned(store)
    layers = tuple(item.diff_id for item in chosen if item.diff_id)
    paths = {item.path for item in chosen}
    return Freed(layers, sum(item.bytes for item in chosen), _users(items, paths, keep_bytes, older_than))


class Trash:
    """Folders of a store that were renamed away while others were locked out, and are removed afterwards.

    Removing takes as long as unpacking did; renaming is one step for each. Nothing is created, so that it works on a full
    disk. A crash leaves folders that the next `gc` removes, as `close` does.
    """

    def __init__(self, store: Store) -> None:
        self._prefix = f"{store.path}/partial/{_TRASH}{os.urandom(6).hex()}"
        self._names: list[str] = []
        self._count = 0

    def __enter__(self) -> Trash:  # noqa: PYI034 # typing.Self is newer than Python 3.10
        return self

    def add(self, path: str) -> None:
        """Take `path` away at once and as a whole. No error if there is none."""
        with contextlib.suppress(FileNotFoundError):
            if not os.path.isdir(path) or os.path.islink(path):
                os.unlink(path)
                return
            self._count += 1
            name = f"{self._prefix}-{self._count}"
            try:
                os.rename(path, name)
            except OSError as error:
                if error.errno not in _FULL or not self._names:
                    raise
                # A folder takes no more names on a full disk: what it has must go first.
                self.empty()
                os.rename(path, name)
            self._names.append(name)

    def empty(self) -> None:
        """Remove all that was added."""
        while self._names:
            remove(self._names.pop())

    def __exit__(self, *_: object) -> None:
        self.empty()


def _among(store: Store, items: list[Candidate], among: Collection[Digest] | None) -> list[Candidate]:
    if among is None:
        return items
    digests = set(among)
    documents = {f"{store.path}/documents/{digest.algorithm}/{digest.hex}" for digest in digests}
    return [item for item in items if item.diff_id in digests or item.path in documents or item.made_of & digests]


def _choose(items: Sequence[Candidate], keep_bytes: int | None, older_than: float | None) -> tuple[Candidate, ...]:
    chosen = plan(items, keep_bytes=keep_bytes, older_than=older_than, now=time.time())
    gone = {item.diff_id for item in chosen if item.diff_id}
    already = {item.path for item in chosen}
    # A tree goes with any of its layers: damage to one of these would never be found in the copy.
    return (*chosen, *(item for item in items if gone & item.made_of and item.path not in already))


def _users(
    items: Iterable[Candidate], chosen: Container[str], keep_bytes: int | None, older_than: float | None
) -> tuple[str, ...]:
    """Who keeps items that the limits would free."""
    free = [replace(item, kept=False) for item in items if item.path not in chosen]
    wanted = plan(free, keep_bytes=keep_bytes, older_than=older_than, now=time.time())
    return tuple(sorted({item.user for item in wanted if item.user}))


def candidates(store: Store) -> list[Candidate]:
    """Every layer, document and derived tree of the store. Others can remove some meanwhile: those are left out."""
    items = []
    used: dict[Digest, float] = {}
    documents = []
    for algorithm in os.listdir(f"{store.path}/documents"):
        with os.scandir(f"{store.path}/documents/{algorithm}") as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    for diff_id in listed_by(entry.path):
                        used[diff_id] = max(used.get(diff_id, 0), status.st_mtime)
                    documents.append((entry.path, _named(algorithm, entry.name), status))
    layers = tuple(store.layers())
    kept = leases.kept(store, (*layers, *(digest for _, digest, _ in documents if digest)))
    mounted = claims.users(store)
    users = {digest: mounted.get(user, user) for digest, user in kept.items()}
    for path, digest, status in documents:
        user = users.get(digest, "") if digest else ""
        items.append(Candidate(path, None, status.st_size, status.st_mtime, bool(user), user=user))
    for diff_id in layers:
        folder = store.folder(diff_id)
        with contextlib.suppress(FileNotFoundError):
            last = max(os.stat(folder).st_mtime, used.get(diff_id, 0))
            user = users.get(diff_id, "") or _owner(folder)
            items.append(Candidate(folder, diff_id, store.size(diff_id), last, bool(user), user=user))
    for folder in derived.trees(store):
        parts = frozenset(derived.layers(folder))
        keeps = bool(parts) and parts <= users.keys()
        user = users[min(parts)] if keeps else ""
        with contextlib.suppress(FileNotFoundError):
            made = os.stat(folder).st_mtime
            items.append(Candidate(folder, None, derived.size(folder), made, keeps, parts, user))
    return items


def _owner(folder: str) -> str:
    """The other user who alone can remove a folder of a shared store, for a message; empty if this user can."""
    owner = os.stat(folder).st_uid
    return "" if os.geteuid() in {0, owner} else f"{user_name(owner)}, who pulled them"


def _named(algorithm: str, name: str) -> Digest | None:
    try:
        return Digest(algorithm, name)
    except InvalidContent:
        return None


def _note_use(items: Iterable[Candidate], freed: Container[str]) -> None:
    # The document that recorded a layer's use may be freed now. An error lets the layer look older than it is.
    for item in items:
        if item.diff_id and item.path not in freed and item.used > os.stat(item.path).st_mtime:
            with contextlib.suppress(OSError):
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
        with contextlib.suppress(FileNotFoundError):
            if _owner(path):
                continue
        if name.startswith(_TRASH):
            remove(path)
        elif not name.startswith("document-"):
            _with_lock(store, name.partition("-")[0], path)
    for name in os.listdir(f"{store.path}/locks"):
        _with_lock(store, name)


def _with_lock(store: Store, name: str, left: str = "") -> None:
    """Remove a layer's lock and its remains at `left`, unless a process brings the layer now."""
    path = f"{store.path}/locks/{name}"
    # Without a lock's file no process has it, and one that begins has a folder of another name. None is created here: the
    # disk may be full.
    lock = locks.try_acquire(path, "gc") if os.path.lexists(path) else -1
    if lock is None:
        return
    try:
        if left:
            remove_left(left)
    finally:
        if lock >= 0:
            locks.release(lock, path)
