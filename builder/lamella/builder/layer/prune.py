"""Free the layer cache: the least recently used first, but no layer that a push used within the last hour."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace
from typing import NamedTuple

from lamella.builder.layer.cache import RECENT, LayerCache
from lamella.layers.upkeep.gc import Candidate, plan


class Pruned(NamedTuple):
    """The freed blobs of layers, and the bytes of blobs and records; the blobs that a running push may still need."""

    blobs: int
    bytes: int
    recent: int = 0
    """Blobs that the limits would free, and that were used within the last hour."""


def prune_cache(
    cache: LayerCache | None = None,
    *,
    keep_bytes: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Free layers unused for `older_than` seconds, then the least recently used until at most `keep_bytes` are left.

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
                os.unlink(item.path)
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
    return items
