"""Lists of the files that name the prefix, and the rewriting of what they list.

Each package has one in `.lamella/relocate/<origin>-<name>.json`, below the prefix:
`{"prefix": "/opt/env", "files": [{"path": "bin/pip", "kind": "text"}]}`, paths relative to the prefix. Text is
replaced as text. In binaries a C string keeps its place and ends in more NULs; it can grow only into the NULs that
were put behind it when a longer prefix was replaced: conda's placeholder, or one of `"room"` bytes. A text with a
`"payload"` ends in binary data: of a `"zip"` archive the offsets are moved, before any other data (`"fixed"`) the text
keeps its length, since the prefix is written with more slashes.
"""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING, Any

from lamella.layers.relocation.prefixes import CannotRelocate, check_prefix
from lamella.layers.relocation.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Callable

LISTS = ".lamella/relocate"
INTERPRETER = "python-python.json"
"""The interpreter's list. It finds its prefix by where it is, so that one in its binaries may stay wrong."""

_MAX_LIST = 64 << 20
"""Bytes of one list: the largest packages list some 10,000 files, of 100 bytes each."""
_MAX_FILE = 1 << 30
"""Bytes of a file that holds a prefix; it is rewritten in memory."""
_PLACEHOLDER = 255
"""Bytes of the prefix that conda-build builds with (conda_build.environ, PREFIX_LENGTH)."""


def lists(folder: str) -> list[str]:
    """Return the sorted names of the lists in an environment's or a layer's folder. Raises `CannotRelocate` for a link."""
    path = folder
    for name in LISTS.split("/"):
        path += "/" + name
        try:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise CannotRelocate(f"{path}: is a link; lists of files are not read through links")
        except OSError:
            return []
    return sorted(name for name in os.listdir(path) if name.endswith(".json"))


def relocate(folder: str, prefix: str, write: Callable[[str, bytes, int], object]) -> str:
    """Call `write` for each file of `folder` that holds another prefix, with (path, content, mode) for `prefix`.

    The lists are among them, and name the new prefix. Returns the prefix of the last list.
    """
    check_prefix(prefix)
    held = prefix
    # A hostile list may name one file thousands of times, each of which would be a copy of it.
    seen: set[str] = set()
    for name in lists(folder):
        path = LISTS + "/" + name
        listed = _read_list(inside(folder, path))
        held = listed["prefix"]
        if held == prefix:
            continue
        for entry in listed["files"]:
            if entry["path"] in seen:
                continue
            seen.add(entry["path"])
            if name.startswith("conda-"):
                entry.setdefault("room", _PLACEHOLDER)
            if not os.path.lexists(os.path.join(folder, entry["path"])):
                continue  # uninstalled by a program that does not know the list
            source = inside(folder, entry["path"])
            with open(source, "rb") as file:
                opened = os.fstat(file.fileno())
                if opened.st_size > _MAX_FILE:
                    raise CannotRelocate(
                        f"{entry['path']}: {opened.st_size} bytes, too large to be rewritten in memory"
                    )
                content = file.read()
                mode = opened.st_mode & 0o777
            try:
                changed = rewrite(content, entry, os.fsencode(held), os.fsencode(prefix))
            except CannotRelocate as error:
                if name != INTERPRETER:
                    raise CannotRelocate(f"{entry['path']} {error}: choose a shorter path than {prefix}") from None
                continue
            write(entry["path"], changed, mode)
        listed["prefix"] = prefix
        write(path, json.dumps(listed, sort_keys=True).encode() + b"\n", 0o644)
    return held


def _read_list(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_LIST + 1)
        if len(content) > _MAX_LIST:
            raise ValueError
        listed = json.loads(content.decode("utf-8"))
        if not os.fsencode(listed["prefix"]).startswith(b"/") or not all(
            isinstance(entry["path"], str) and entry["kind"] in ("text", "binary") for entry in listed["files"]
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CannotRelocate(f"{path}: not a list of files that hold a prefix") from None
    return listed  # type: ignore[no-any-return]


def inside(folder: str, path: str) -> str:
    """Return the file `path` of `folder`. Raises `CannotRelocate` for one that `..` or a link leads elsewhere."""
    found = folder + "/" + path
    try:
        inside = os.path.realpath(found) == os.path.realpath(folder) + "/" + path and os.path.isfile(found)
    except ValueError:  # a NUL, half a surrogate pair
        inside = False
    if not inside:
        raise CannotRelocate(f"{path!r}: in a list of files that hold the prefix, but not a file of the environment")
    return found
