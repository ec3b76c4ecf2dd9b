"""The folder of everything that Lamella caches for this user: layers, wheels, hashes."""

from __future__ import annotations

import os


def cache_folder() -> str:
    """`$LAMELLA_CACHE`, else `lamella` in the user's cache folder. Absolute; not made here."""
    own = os.environ.get("LAMELLA_CACHE")
    if own:
        return os.path.abspath(own)
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(caches, "lamella")
