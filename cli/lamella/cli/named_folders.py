"""The store and the cache of verbs that write nothing there: a mistyped --store or --cache is not an empty one.

Only a flag has to name what exists: the default, a variable or a settings file may name what the first pull or push makes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.cli.settings import quoted

if TYPE_CHECKING:
    import argparse

    from lamella.builder import LayerCache
    from lamella.layers import Store


def existing_store(arguments: argparse.Namespace) -> Store:
    """Return the command's store. Raises `NotFound` if --store names a folder that has none, and `StoreError`."""
    from lamella.layers import NotFound, Store

    store = Store(arguments.store)
    if "store" in arguments.given and not store.exists():
        raise NotFound(
            f"--store {quoted(arguments.store)}: no store there; name the folder that lamella pull used, or leave out --store"
        )
    return store


def existing_cache(arguments: argparse.Namespace) -> LayerCache:
    """Return the command's cache. Raises `NotFound` if --cache names a missing folder, and `CacheError`."""
    from lamella.builder import LayerCache
    from lamella.layers import NotFound

    if "cache" in arguments.given and not os.path.isdir(arguments.cache):
        raise NotFound(
            f"--cache {quoted(arguments.cache)}: no such folder; name the one that lamella push used, or leave out --cache"
        )
    return LayerCache(arguments.cache)
