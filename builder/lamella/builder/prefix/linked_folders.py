"""Folders of an environment that are links to other folders of this disk, such as `lib -> usr/lib`.

Each ships as a folder at the path by which Python finds it, so that a package's files have one place whatever
the layout, and no layer has a link where another has files. The folder's own path becomes a link to it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.prefix.locate import SHARED
from lamella.builder.prefix.walk import FoundFile, Tree, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_MOVED = "ships at another path"


class LinkedFolder(NamedTuple):
    """A folder that is a link."""

    path: str
    """Path of the link, relative to the prefix."""
    source: str
    """Absolute real path of the folder."""
    own: str
    """The folder's own path in the environment, with every earlier linked folder at its place; empty if outside."""
    on_disk: str
    """The folder's own path on this disk, relative to the prefix; empty if outside."""


def linked_folders(prefix: str, short: str) -> list[LinkedFolder]:
    """Linked folders of the environment at `prefix`, for Python `short`, that packages share; the outer ones first."""
    real = os.path.realpath(prefix)
    if real in SHARED:
        return []  # only Python's own files of a whole system ship
    found: list[LinkedFolder] = []
    stdlib = f"lib/python{short}"
    for path in ("bin", "etc", "include", "lib", "libexec", "share", f"include/python{short}", stdlib, f"{stdlib}/site-packages"):  # fmt: skip
        at = os.path.join(prefix, path)
        source = os.path.realpath(at)
        if not os.path.islink(at) or not os.path.isdir(source):
            continue
        inside = f"{source}/".startswith(f"{real}/")
        on_disk = source[len(real) + 1 :] if inside else ""
        own = _logical(on_disk, found)
        if not inside or not (f"{path}/".startswith(f"{own}/") or f"{own}/".startswith(f"{path}/")):
            found.append(LinkedFolder(path, source, own, on_disk))
    return found


def walk_prefix(
    prefix: str,
    linked: Sequence[LinkedFolder],
    skip: Callable[[str, str], str | None],
    only_in: frozenset[str] | None = None,
) -> Tree:
    """List the files below `prefix` as `walk` does, with those of each linked folder below the link's path."""
    if not linked:
        return walk(prefix, skip=skip, only_in=only_in)
    moved = {path for each in linked for path in (each.path, each.own) if path}
    if only_in is not None:
        only_in |= {path.rpartition("/")[0] for path in moved}

    def asked(path: str, name: str) -> str | None:
        return _MOVED if path in moved else skip(path, name)

    tree = walk(prefix, skip=asked, only_in=only_in)
    for each in linked:
        below = walk(each.source, each.path, asked, only_in=only_in)
        tree.entries.extend(below.entries)
        tree.left_out.extend(below.left_out)
        if each.own:
            at = os.path.join(prefix, each.path)
            target = os.path.relpath(each.path, os.path.dirname(each.own) or ".")
            tree.entries.append(FoundFile(each.own, at, os.lstat(at), target))
    return Tree(tree.entries, [item for item in tree.left_out if item.reason != _MOVED])


def _logical(path: str, linked: Sequence[LinkedFolder]) -> str:
    for each in linked:
        if each.own and f"{path}/".startswith(f"{each.own}/"):
            path = each.path + path[len(each.own) :]
    return path
