"""An export as a folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.errors import MountError
from lamella.layers.mounting import link_tree
from lamella.layers.tar.headers import MTIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from lamella.layers.exporting.members import Member

_TIME = (MTIME * 10**9, MTIME * 10**9)


def write_folder(
    path: str, members: Iterable[Member], ways: Sequence[link_tree.How], done: Callable[[int], object]
) -> None:
    """Write `members` into the new folder `path`; call `done` with bytes.

    Files with a source are placed in the first of `ways` that works here, the others written. Raises
    `MountError` if none works.
    """
    os.mkdir(path, 0o755)
    made = {""}
    left = list(ways)
    for member in members:
        _make_folders(path, os.path.dirname(member.path), made)
        there = f"{path}/{member.path}"
        if member.target is not None:
            os.symlink(member.target, there)
        elif not (member.source and _placed(member.source, there, left)):
            _write(there, member)
        done(member.size)


def _placed(source: str, there: str, ways: list[link_tree.How]) -> bool:
    while ways:
        try:
            link_tree.place(source, there, ways[0])
            return True
        except MountError:
            if len(ways) == 1:
                raise
            # As it is with this file, it is with the others.
            del ways[0]
            link_tree.remove(there)
    return False


def _write(there: str, member: Member) -> None:
    with open(there, "xb", buffering=0) as file:
        for piece in member.read():
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
        os.fchmod(file.fileno(), member.mode)
    os.utime(there, ns=_TIME)


def _make_folders(path: str, folder: str, made: set[str]) -> None:
    if folder not in made:
        _make_folders(path, os.path.dirname(folder), made)
        link_tree.make_folder(f"{path}/{folder}")
        made.add(folder)
