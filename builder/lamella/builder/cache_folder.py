"""Folder of everything that Lamella caches for this user: layers, wheels, hashes."""

from __future__ import annotations

import errno
import os

from lamella.builder.errors import CacheError
from lamella.layers.hardening.permissions import stranger
from lamella.layers.settings import homes
from lamella.layers.settings.folders import named_folder
from lamella.layers.settings.policy import machine_policy

TARGETS = "targets"
"""Folder, in the cache, of prefixes for other platforms. One that is not locked can be removed at any moment."""
STATE = "state.json"
"""File of such a prefix's folder that is written at each use."""


def cache_folder(chosen: str | None = None) -> str:
    """`chosen`, else the folder that `LAMELLA_CACHE` or a configuration file names, else the user's. Absolute; not created.

    Raises `CacheError` if others than this user and root can change it, since a push ships what it holds, and without a home.
    """
    own = chosen or named_folder("cache")
    caches = homes.cache_folder()
    if not own and not caches:
        raise CacheError("no home folder for the cache; set HOME, or LAMELLA_CACHE to a folder of your own")
    path = os.path.abspath(own) if own else os.path.join(caches, "lamella")
    if found := stranger(path, machine_policy().shared_group):
        raise CacheError(f"the cache {path}: {found}; {found.advice('another cache with LAMELLA_CACHE')}")
    return path


def cannot_write(path: str, what: str, error: OSError) -> CacheError:
    """Return the error for `what` that could not be written to `path`, in the cache."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CacheError(f"{path}: no space left for {what}; free some, or set LAMELLA_CACHE to another disk")
    return CacheError(f"{path}: {what} cannot be written: {error.strerror}; set LAMELLA_CACHE to a folder of your own")
