"""Measure and free the layer cache: the least recently used first, but no layer that a push used within the last hour."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from dataclasses import replace
from typing import NamedTuple

from lamella.builder.cache_folder import STATE, TARGETS
from lamella.builder.layer.cache import RECENT, LayerCache
from lamella.layers.hardening.file_locks import try_lock
from lamella.layers.upkeep.gc import Candidate, plan
from lamella.layers.upkeep.usage import MONTH


class Pruned(NamedTuple):
    """The freed blobs of layers, and the bytes of blobs and records; the blobs that a running push may still need."""

    blobs: int
    bytes: int
    recent: int = 0
    """Blobs that the limits would free, and that were used within the last hour."""


class CacheUsage(NamedTuple):
    """Bytes of this user's cache, and those that `prune_cache` can free now."""

    path: str
    blobs: int
    """Number of built layers."""
    blob_bytes: int
    record_bytes: int
    """Bytes of the records that map layer keys to layers, and of prefixes for other platforms."""
    other_bytes: int
    """Bytes of hashes of files and of local projects' wheels, which no verb frees: remove the folder to free them."""
    recent_bytes: int
    """Bytes of layers that were used within the last hour, and stay."""
    reclaimable: int
    """Bytes that `gc --layer-cache --all` frees."""
    unused: int
    """Bytes that `gc --layer-cache --older-than 30d` frees."""
    free: int
    """Bytes free on the file system."""
    capacity: int
    """Bytes of the file system."""

    @property
    def bytes(self) -> int:
        """Bytes of everything."""
        return self.blob_bytes + self.record_bytes + self.other_bytes


def cache_usage(cache: LayerCache | None = None) -> CacheUsage:
    """Count the bytes of `cache`, by default this user's. Changes nothing."""
    cache = cache or LayerCache()
    now = time.time()
    items = _items(cache, now)
    blobs = [item for item in items if item.path.startswith(cache.blobs)]
    folder = os.path.dirname(cache.path)
    place = folder
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    disk = os.statvfs(place)
    total = sum(item.bytes for item in items)
    return CacheUsage(
        path=folder,
        blobs=len(blobs),
        blob_bytes=sum(item.bytes for item in blobs),
        record_bytes=total - sum(item.bytes for item in blobs),
        other_bytes=_other(folder, cache.path),
        recent_bytes=sum(item.bytes for item in blobs if item.kept),
        reclaimable=sum(item.bytes for item in items if not item.kept),
        unused=sum(item.bytes for item in plan(items, keep_bytes=None, older_than=MONTH, now=now)),
        free=disk.f_bavail * disk.f_frsize,
        capacity=disk.f_blocks * disk.f_frsize,
    )


def _other(folder: str, layers: str) -> int:
    total = 0
    for where, folders, names in os.walk(folder):
        # A store may be below, too: another folder's business.
        apart = (layers, os.path.join(folder, TARGETS))
        folders[:] = [name for name in folders if os.path.join(where, name) not in apart and not _is_store(where, name)]
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _is_store(where: str, name: str) -> bool:
    return os.path.isdir(os.path.join(where, name, "leases"))


def prune_cache(
    cache: LayerCache | None = None,
    *,
    keep_bytes: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Free layers and prefixes for other platforms unused for `older_than` seconds, then the least recently used until at most `keep_bytes` are left.

    A freed layer is built or learned again when it is needed. A layer that was used within the last hour stays, since a
    running push may have planned with it. Raises `CacheError` if the cache cannot be read.
    """
    cache = cache or LayerCache()
    now = time.time()
    items = _items(cache, now)
    chosen = plan(items, keep_bytes=keep_bytes, older_than=older_than, now=now)
    without_recent = plan(
        [replace(item, kept=False) for item in items], keep_bytes=keep_bytes, older_than=older_than, now=now
    )
    if not dry_run:
        for item in chosen:
            with contextlib.suppress(FileNotFoundError):
                _remove(item.path)
    blobs, wanted = (sum(item.path.startswith(cache.blobs) for item in listed) for listed in (chosen, without_recent))
    return Pruned(blobs, sum(item.bytes for item in chosen), max(wanted - blobs, 0))


def _items(cache: LayerCache, now: float) -> list[Candidate]:
    items = []
    for folder in (cache.blobs, cache.keys, cache.notes):
        for where, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(where, name)
                try:
                    seen = os.stat(path)
                except FileNotFoundError:
                    continue  # another process freed it
                items.append(Candidate(path, None, seen.st_size, seen.st_mtime, now - seen.st_mtime < RECENT))
    return [*items, *_prefixes(cache, now)]


def _prefixes(cache: LayerCache, now: float) -> list[Candidate]:
    """Prefixes for other platforms: each is made again by the push that needs it."""
    folder = os.path.join(os.path.dirname(cache.path), TARGETS)
    found = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                state = os.path.join(entry.path, STATE)
                used = os.stat(state if os.path.exists(state) else entry.path).st_mtime
                found.append(Candidate(entry.path, None, _bytes(entry.path), used, now - used < RECENT))
    return found


def _bytes(folder: str) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _remove(path: str) -> None:
    """Remove a blob or record, or a prefix unless a push holds it."""
    if not os.path.isdir(path):
        os.unlink(path)
        return
    lock = f"{path}.lock"
    with open(lock, "a+b") as held:
        if try_lock(held.fileno()):
            shutil.rmtree(path, ignore_errors=True)
            if sys.platform != "win32":  # there an open file stays
                os.unlink(lock)
