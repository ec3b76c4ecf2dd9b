"""Every file below a folder, with one look at each, and where it belongs in the environment."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Callable

BYTE_CODE = "byte code, which is compiled anew"
SPECIAL = "neither a file, a folder nor a link"


class FoundFile(NamedTuple):
    """A regular file or symlink that was seen. A NamedTuple, since 66,000 of them are made within a second."""

    path: str
    """Relative to the environment's prefix."""
    source: str
    """Absolute, on this disk."""
    seen: os.stat_result
    target: str | None = None
    """A symlink's text as it is; None for a regular file."""


class Tree(NamedTuple):
    """What is below one folder."""

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
    """The files below `root`, which belong at `under` (relative to the prefix, no slash at its end).

    `skip(path, name)` gives the reason why a file or folder is left out, or None; it is asked for what is in the folders
    `only_in`, or everywhere. Links are not followed. What is left out is named by its absolute path where the folder is
    `borrowed`, since it is not in the environment's prefix. `CannotBuild` for a folder that can't be listed.
    """
    tree = Tree([], [])
    pending = [(root, under)]
    while pending:
        folder, inside = pending.pop()
        try:
            with os.scandir(folder) as found:
                listed = list(found)
        except OSError as error:
            raise CannotBuild(f"can't list {folder}: {error.strerror}; make it readable for you") from error
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
                    tree.entries.append(FoundFile(path, item.path, seen))
                    continue
                if kind == stat.S_IFLNK:
                    tree.entries.append(FoundFile(path, item.path, seen, os.readlink(item.path)))
                    continue
                reason = SPECIAL
            tree.left_out.append(LeftOut(item.path if borrowed else path, reason))
    return tree


def find_file(path: str, source: str) -> FoundFile | None:
    """The one file or symlink at `source`; None where neither is there."""
    try:
        seen = os.lstat(source)
        target = os.readlink(source) if stat.S_ISLNK(seen.st_mode) else None
    except OSError:
        return None
    return FoundFile(path, source, seen, target) if target is not None or stat.S_ISREG(seen.st_mode) else None
