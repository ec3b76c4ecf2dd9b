"""Folder of everything that Lamella caches for this user: layers, wheels, hashes."""

from __future__ import annotations

import os

from lamella.builder.errors import CacheError
from lamella.layers import homes


def cache_folder() -> str:
    """`$LAMELLA_CACHE`, else `lamella` in the user's cache folder. Absolute; not created. Raises `CacheError` without a home."""
    own = os.environ.get("LAMELLA_CACHE")
    if own:
        return os.path.abspath(own)
    if not (caches := homes.cache_folder()):
        raise CacheError("no home folder for the cache; set HOME, or LAMELLA_CACHE to a folder of your own")
    return os.path.join(caches, "lamella")
