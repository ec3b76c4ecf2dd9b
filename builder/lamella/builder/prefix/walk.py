"""List every file below a folder, with one stat each, and its place in the environment."""

from __future__ import annotations

import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Callable

BYTE_CODE = "byte code, which is compiled again"
SPECIAL = "neither a file, a folder nor a link"


class FoundFile(NamedTuple):
    """A regular file or symlink. A NamedTuple, since a scan makes 66,000 of them within a second."""

    path: str
    """Path relative to the environment's prefix."""
    source: str
    """Absolute path on this disk."""
    seen: os.stat_result
    target: str | None = None
    """Text of a symlink; None for a regular file."""


# The constructor of a NamedTuple is a Python function: this takes half its time.
_new_entry: Callable[[tuple[str, str, os.stat_result, str | None]], FoundFile] = partial(tuple.__new__, FoundFile)


class Tree(NamedTuple):
    """Files below one folder."""

    entries: list[FoundFile]
    left_out: list[LeftOut]


def walk(
    root: str,
    under: str = "",
    skip: Callable[[str, str], str | None] | None = None,
    *,
    only_in: frozenset[str] | None = None,
    borrowed: bool = False,
) -> Tree:
    """List the files below `root`, which belong at `under` (relative to the prefix, without a trailing slash).

    `skip(path, name)` returns the reason to leave out a file or folder, or None; it is called for the
    contents of the folders `only_in`, or of all folders. Links are not followed. Left-out files are named
    by absolute path if the folder is `borrowed` from outside the prefix. Raises `CannotBuild` for a folder
    that cannot be listed.
    """
    tree = Tree([], [])
    append = tree.entries.append
    pending = [(root, under)]
    while pending:
        folder, inside = pending.pop()
        try:
            with os.scandir(folder) as found:
                listed = list(found)
        except OSError as error:
            raise CannotBuild(f"cannot list {folder}: {error.strerror}; make it readable for you") from error
        names = None
        asked = skip if only_in is None or inside in only_in else None
        prefix = inside + "/" if inside else ""
        for item in listed:
            name, path = item.name, prefix + item.name
            reason = asked(path, name) if asked else None
            if reason is None and item.is_dir(follow_symlinks=False):
                if name != "__pycache__":
                    pending.append((item.path, path))
                    continue
                reason = BYTE_CODE
            elif reason is None and name.endswith(".pyc"):
                names = names or {other.name for other in listed}
                reason = BYTE_CODE if name[:-1] in names else None
            if reason is None:
                seen = item.stat(follow_symlinks=False)
                kind = seen.st_mode & 0o170000
                if kind == stat.S_IFREG:
                    append(_new_entry((path, item.path, seen, None)))
                    continue
                if kind == stat.S_IFLNK:
                    tree.entries.append(FoundFile(path, item.path, seen, os.readlink(item.path)))
                    continue
                reason = SPECIAL
            tree.left_out.append(LeftOut(item.path if borrowed else path, reason))
    return tree


def find_file(path: str, source: str) -> FoundFile | None:
    """The file or symlink at `source`, or None if there is neither."""
    try:
        seen = os.lstat(source)
        target = os.readlink(source) if stat.S_ISLNK(seen.st_mode) else None
    except OSError:
        return None
    return FoundFile(path, source, seen, target) if target is not None or stat.S_ISREG(seen.st_mode) else None
