"""Dask clusters whose scheduler and workers run in the caller's environment, on hosts that need no Python.

    >>> from distributed import Client
    >>> from lamella.integrations.dask import LamellaCluster, sync
    >>> client = Client(LamellaCluster("registry.example.com/team/envs:me", ["head", "node1", "node2"]))
    >>> sync(client)  # after an edit or an upgrade

Names load on first use. They need `distributed`, the extra `dask` of Lamella.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lamella.builder import LamellaError

if TYPE_CHECKING:
    from lamella.integrations.dask.cluster import LamellaCluster, Source
    from lamella.integrations.dask.hosts import ClusterError, Hosts
    from lamella.integrations.dask.kubernetes import kube_cluster_spec
    from lamella.integrations.dask.sync import Synced, async_sync, sync

__all__ = ["ClusterError", "Hosts", "LamellaCluster", "Source", "Synced", "async_sync", "kube_cluster_spec", "sync"]

_MODULES = {
    "ClusterError": "hosts",
    "Hosts": "hosts",
    "LamellaCluster": "cluster",
    "Source": "cluster",
    "Synced": "sync",
    "async_sync": "sync",
    "kube_cluster_spec": "kubernetes",
    "sync": "sync",
}


class MissingExtra(LamellaError, ImportError):
    """A package that an extra of Lamella installs is missing."""


def __getattr__(name: str) -> object:
    """Import `name` from its module. Source: PEP 562."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import_module("distributed")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"distributed", "dask"}:
            raise
        raise MissingExtra(
            f"lamella.integrations.dask.{name}: {error.name} is missing; install Lamella with its extra: lamella[dask]"
        ) from None
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
