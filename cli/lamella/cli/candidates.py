"""Words that complete an argument, known on this machine: the store's references, layouts, environments, mounts.

Registries are not asked: a completion has to be quick, and a key press must not send credentials.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.layers import Mounted, Store

KINDS = ("reference", "environment", "either", "mount")
MOST = 200
"""Candidates for one word."""
_LAYOUT = "oci:"
_MARKS = ("pyvenv.cfg", "conda-meta")
"""What a folder has that is an environment."""
_USUAL = (".venv", "venv", ".pixi/envs/default", "env")
"""Environments that a folder's listing does not show, since they are hidden or below others."""


def candidates(kind: str, word: str, store: str) -> list[str]:
    """Return the words of `kind` that start with `word`. Nothing that fails is an error here."""
    from lamella.layers import LamellaError

    try:
        found = [each for each in _known(kind, word, store) if each.startswith(word) and each.isprintable()]
    except (LamellaError, OSError):
        return []
    return list(dict.fromkeys(found))[:MOST]


def _known(kind: str, word: str, store: str) -> Iterable[str]:
    if kind == "mount":
        return [*(mounted.target for mounted in _mounts(store)), *_folders(word)]
    if kind == "environment":
        return _environments(word)
    references = _in_layouts(word) if word.startswith(_LAYOUT) else [_LAYOUT, *_of_store(store)]
    return [*references, *_environments(word)] if kind == "either" else references


def _mounts(store: str) -> Iterable[Mounted]:
    from lamella.layers import mounts

    return mounts(_store(store))


def _store(path: str) -> Store:
    from lamella.layers import Store

    return Store(path or None)


def _of_store(store: str) -> list[str]:
    from lamella.layers import stored_environments

    return [name for each in stored_environments(_store(store)) for name in each.names]


def _in_layouts(word: str) -> list[str]:
    """Return `oci:FOLDER:TAG` of each layout folder, and `oci:FOLDER/` of other folders."""
    path = word.removeprefix(_LAYOUT)
    folder, colon, _ = path.rpartition(":")
    if colon and _is_layout(folder):
        return _tags(folder)
    found: list[str] = []
    for each in _folders(path):
        name = each.rstrip("/")
        found += _tags(name) if _is_layout(name) else [f"{_LAYOUT}{each}"]
    return found


def _is_layout(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, "oci-layout"))


def _tags(folder: str) -> list[str]:
    from lamella.layers import tags

    return [f"{_LAYOUT}{folder}:{tag}" for tag in tags(f"{_LAYOUT}{folder}")]


def _environments(word: str) -> list[str]:
    """Return the folders that start with `word`, environments first."""
    here = os.path.dirname(word)
    usual = [os.path.join(here, name) for name in _USUAL]
    folders = [*(name for name in usual if os.path.isdir(name)), *(each.rstrip("/") for each in _folders(word))]
    known = [name for name in folders if any(os.path.exists(os.path.join(name, mark)) for mark in _MARKS)]
    return [*known, *(f"{name}/" for name in folders if name not in known)]


def _folders(word: str) -> list[str]:
    """Return the folders that start with `word`, with a slash; hidden ones only if `word` names one."""
    folder, name = os.path.split(word)
    with os.scandir(folder or ".") as entries:
        names = sorted(
            entry.name
            for entry in entries
            if entry.name.startswith(name) and (name or not entry.name.startswith(".")) and entry.is_dir()
        )
    return [f"{os.path.join(folder, each)}/" for each in names]
