"""Names that a disk merges or changes: the usual disks of macOS and Windows hold one of two that differ in case alone."""

from __future__ import annotations

import os
import tempfile
import unicodedata
from typing import TYPE_CHECKING

from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

REMEDY = "set LAMELLA_CACHE to a case-sensitive folder with a short path, or push from Linux"


def refusal(subject: str, path: str, other: str = "") -> str:
    """Return the message about a `path` that the disk cannot hold, or cannot hold beside `other`."""
    beside = f" beside {escaped(other, 300)}" if other else " by that name"
    return f"{subject}: this disk cannot hold {escaped(path, 300)}{beside}; {REMEDY}"


def merges_names(folder: str) -> bool:
    """Whether the disk takes two names in `folder` that differ in case alone for one. Raises `OSError`."""
    descriptor, path = tempfile.mkstemp(prefix="lamella-", dir=folder)
    os.close(descriptor)
    try:
        return os.path.lexists(os.path.join(folder, os.path.basename(path).upper()))
    finally:
        os.unlink(path)


def indistinct(paths: Iterable[str]) -> dict[str, str]:
    """Return those of `paths` that a disk which merges names cannot hold, each with the path that it takes it for.

    Of two, the first stays. A file in a folder that the disk takes for another one is among them.
    """
    spelled: dict[str, str] = {}
    known = {"": ""}

    def taken_for(path: str) -> str:
        if path not in known:
            above = taken_for(path.rpartition("/")[0])
            other = spelled.setdefault(_folded(path), path)
            known[path] = above if other == path else other
        return known[path]

    return {path: other for path in paths if (other := taken_for(path))}


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def unlisted(folder: str, paths: Collection[str]) -> list[str]:
    """Return those of `paths`, relative to `folder`, that the disk does not list by that name; sorted. Raises `OSError`."""
    left = set(paths)
    pending = [(folder, "")]
    while pending:
        place, inside = pending.pop()
        with os.scandir(place) as found:
            for item in found:
                path = f"{inside}{item.name}"
                if item.is_dir(follow_symlinks=False):
                    pending.append((item.path, f"{path}/"))
                else:
                    left.discard(path)
    return sorted(left)
