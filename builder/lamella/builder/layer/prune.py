"""Frees the layer cache: the least recently used first, and never what a push of the last hour may need."""

from __future__ import annotations

import contextlib
import os
import time
from typing import NamedTuple

from lamella.builder.layer.cache import RECENT, LayerCache
from lamella.layers.upkeep.gc import Candidate, plan


class Pruned(NamedTuple):
    """What was freed: blobs of layers, and the bytes of them and of what is remembered about layers."""

    blobs: int
    bytes: int


def prune_cache(
    cache: LayerCache | None = None,
    *,
    keep_bytes: int | None = None,
    older_than: float | None = None,
    dry_run: bool = False,
) -> Pruned:
    """Frees what was not used for `older_than` seconds, then the least recently used until at most `keep_bytes` are left.

    Whatever goes is built or learned again when it is needed. `CacheError` where the cache can't be read.
    """
    cache = cache or LayerCache()
    now = time.time()
    chosen = plan(_items(cache, now), keep_bytes=keep_bytes, older_than=older_than, now=now)
    if not dry_run:
        for item in chosen:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(item.path)
    blobs = sum(item.path.startswith(cache.blobs) for item in chosen)
    return Pruned(blobs, sum(item.bytes for item in chosen))


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
