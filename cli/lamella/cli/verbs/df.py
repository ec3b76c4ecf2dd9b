"""`lamella df`: show the space that the store and the cache take, and how to free it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.named_folders import existing_cache, existing_store
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import CACHE, STORE, add_settings
from lamella.cli.tables import Column
from lamella.layers.text import size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import CacheUsage
    from lamella.layers import StoreUsage

SETTINGS = (STORE, CACHE)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Show the store, and the cache if this user has one."""
    from lamella.layers import LamellaError, NotFound, Unsupported, disk_usage

    store = disk_usage(existing_store(arguments))
    cache = None
    try:
        from lamella.builder import cache_usage

        cache = cache_usage(existing_cache(arguments))
    except Unsupported:
        pass  # The node's part of Lamella has no cache.
    except NotFound:
        raise
    except LamellaError as error:
        # A node has none, if its user has no home.
        remark(str(error), quiet=arguments.quiet)
    if arguments.json:
        result_json(
            {
                "store": asdict(store) | {"bytes": store.bytes},
                "cache": cache and cache._asdict() | {"bytes": cache.bytes},
            }
        )
        return 0
    _show_store(store)
    if cache:
        result("")
        _show_cache(cache)
    return 0


def _show_store(store: StoreUsage) -> None:
    result(f"store {store.path}: {size(store.bytes)}, with {size(store.free)} of {size(store.capacity)} free")
    _table(
        ("layers", store.layers, store.layer_bytes),
        ("  in no environment", None, store.nameless_bytes),
        ("manifests and configs", None, store.document_bytes),
        ("trees made of layers", store.trees, store.tree_bytes),
        ("unfinished, and remains", None, store.unfinished_bytes),
        ("changes of writable mounts", None, store.change_bytes),
        ("  in use now, of all of these", None, store.kept_bytes),
    )
    _freed("lamella gc", store.unused, store.reclaimable)


def _show_cache(cache: CacheUsage) -> None:
    result(f"cache {cache.path}: {size(cache.bytes)}, with {size(cache.free)} of {size(cache.capacity)} free")
    _table(
        ("built layers", cache.blobs, cache.blob_bytes),
        ("  used within the last hour", None, cache.recent_bytes),
        ("records of layers", None, cache.record_bytes),
        ("hashes and wheels", None, cache.other_bytes),
    )
    _freed("lamella gc --layer-cache", cache.unused, cache.reclaimable)


def _table(*rows: tuple[str, int | None, int]) -> None:
    table(
        (Column("What", style="bold"), Column("Number", "right"), Column("Size", "right")),
        [(what, "" if number is None else f"{number:,}", size(count)) for what, number, count in rows],
    )


def _freed(command: str, unused: int, reclaimable: int) -> None:
    # Two short lines: a terminal may cut a long one within a size, since commands are never wrapped.
    result(f"{command} --older-than 30d frees {size(unused)}")
    result(f"{command} --all frees {size(reclaimable)}")
