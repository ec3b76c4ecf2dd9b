"""Freeing a node's space by pressure: layers that nothing keeps first, then environments that no pod uses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.text import counted, size
from lamella.layers.upkeep.gc import gc

if TYPE_CHECKING:
    from lamella.layers.agent.environments import Environments, Log
    from lamella.layers.agent.metrics import Counts
    from lamella.layers.agent.options import AgentOptions
    from lamella.layers.store.store import Store


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of a store and of its file system."""

    layers: int
    """Number of layers."""
    used: int
    free: int
    capacity: int


def measured(store: Store) -> Space:
    """Return the space that `store` takes now. Raises `StoreError`."""
    with store.explained():
        disk = os.statvfs(store.path)
        sizes = [store.size(diff_id) for diff_id in store.layers()]
    return Space(len(sizes), sum(sizes), disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)


def limit(space: Space, keep_bytes: int | None, min_free: float) -> int | None:
    """Return the bytes that the store may have, or None if it is within both limits.

    `keep_bytes`: most bytes of the store. `min_free`: share of its file system to keep free.
    """
    lacking = int(min_free * space.capacity) - space.free
    limits = [keep_bytes] if keep_bytes is not None and space.used > keep_bytes else []
    if lacking > 0:
        limits.append(max(0, space.used - lacking))
    return min(limits) if limits else None


def relieve(environments: Environments, options: AgentOptions, counts: Counts, notify: Log) -> bool:
    """Free layers until the store is within the limits of `options`; return whether anything was freed. Raises `StoreError`."""
    wanted = limit(measured(environments.store), options.keep_bytes, options.min_free)
    return wanted is not None and shrink(environments, wanted, options.idle, counts, notify)


def shrink(environments: Environments, keep_bytes: int, idle: float, counts: Counts, notify: Log) -> bool:
    """Free the least recently used layers until `keep_bytes` are left; return whether anything was freed.

    Environments that were `idle` that many seconds are unmounted one by one if that is not enough.
    """
    store = environments.store
    freed = layers = 0
    waiting = environments.idle(idle)
    while True:
        done = gc(store, keep_bytes=keep_bytes)
        freed, layers = freed + done.bytes, layers + len(done.layers)
        if measured(store).used <= keep_bytes:
            break
        while waiting and not environments.unmount(waiting[0], idle):
            del waiting[0]
        if not waiting:
            break
        del waiting[0]
    if freed:
        counts.add("freed_bytes_total", freed)
        notify(f"freed {size(freed)}, {counted(layers, 'layer')} of {store.path}", bytes=freed, layers=layers)
    return freed > 0
