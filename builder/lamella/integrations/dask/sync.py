"""Bring a running cluster to the caller's environment and code."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.integrations.dask.cluster import LamellaCluster, Source, pushed_or_found
from lamella.integrations.dask.hosts import ClusterError
from lamella.layers import Reference
from lamella.layers.text import size

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, slots=True, repr=False)
class Synced:
    """Result of `sync`."""

    reference: str
    """What the cluster runs, with its digest."""
    moved: int
    """Bytes uploaded."""
    restarted: bool
    """Whether the scheduler and the workers were restarted: results that they held are gone, and tasks were cancelled."""

    def __repr__(self) -> str:
        """One line."""
        return f"<Synced {self.reference}: {size(self.moved)}; {'restarted' if self.restarted else 'unchanged'}>"


def sync(client: Client, reference: str | None = None, *, source: Source | None = None) -> Synced:
    """Push this process's environment and local code, and restart the client's `LamellaCluster` in it if it changed.

    As `Client.restart` does, a restart cancels all futures and empties the workers' memory; `client` stays connected, and
    tasks that are submitted afterwards run in the new environment alone. Everything is pushed to the registry and pulled by
    each host before: a failure until then raises, and the cluster works on as it was. Without a change, workers that were
    lost are started again, and nothing else happens.

    `reference` and `source` default to the cluster's own. Raises `ClusterError`, and what `lamella.builder.push` raises.
    """
    if client.asynchronous:
        raise ClusterError("sync: the client is asynchronous; use await async_sync(client)")
    cluster, target, chosen = _wanted(client, reference, source)
    # Outside the event loop, where Ctrl-C reaches it.
    found, pushed = pushed_or_found(target, chosen)
    restarted: bool = client.sync(_move, client, cluster, found)
    return Synced(found, pushed.moved if pushed else 0, restarted)


async def async_sync(client: Client, reference: str | None = None, *, source: Source | None = None) -> Synced:
    """Do as `sync`, for an asynchronous client; the push runs in a thread."""
    cluster, target, chosen = _wanted(client, reference, source)
    found, pushed = await asyncio.to_thread(pushed_or_found, target, chosen)
    return Synced(found, pushed.moved if pushed else 0, await _move(client, cluster, found))


def _wanted(client: Client, reference: str | None, source: Source | None) -> tuple[LamellaCluster, str, Source]:
    """Return the client's cluster, and what to push where."""
    cluster: object = client.cluster
    if not isinstance(cluster, LamellaCluster):
        if cluster is None:
            raise ClusterError(
                "sync: the client is connected by an address, and only the process that created the LamellaCluster can "
                "start its workers again; call sync there, or create a cluster here: Client(LamellaCluster(REFERENCE, HOSTS))"
            )
        raise ClusterError(
            f"sync: the client's cluster is {type(cluster).__name__}; create it with Client(LamellaCluster(REFERENCE, HOSTS))"
        )
    return cluster, str(Reference.parse(reference or cluster.reference)), source or cluster.source or Source()


async def _move(client: Client, cluster: LamellaCluster, reference: str) -> bool:
    if Reference.parse(reference).digest == Reference.parse(cluster.running).digest:
        await cluster._start_lost()
        return False
    former: Any = client.scheduler_comm
    await cluster._move(reference)
    unnoticed = client.scheduler_comm is former
    if unnoticed:
        former.abort()
    # The client looks for its scheduler in a task of its own.
    while client.status == "connecting" or client.scheduler_comm is former:
        await asyncio.sleep(0.01)
    if client.status != "running":
        raise ClusterError("sync: the client has closed; create another with Client(cluster)")
    return True
