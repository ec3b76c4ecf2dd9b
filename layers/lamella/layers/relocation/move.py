"""Move a whole environment in place, so that a crash leaves what the next call finishes or begins again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import TYPE_CHECKING

from lamella.layers.relocation.lists import inside, lists, relocate
from lamella.layers.relocation.prefixes import CannotRelocate, check_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator

MOVING = ".lamella/moving"
"""A move that is under way, or was cut short: new files by number, and `complete`, which lists their paths."""
LOCK = ".lamella/lock"
PREFIX_FILE = ".lamella/prefix"
"""In an export, the prefix that its files name. Written last: when it names the right prefix, all of them do."""


def move(folder: str, prefix: str) -> int:
    """Make the environment in `folder` one for `prefix`, in place; return the number of files that were changed.

    New files are written whole beside the old ones before the first of these is replaced: a crash leaves what the
    next call finishes, or what it begins again. Of several processes, one moves and the others wait for it. Raises
    `CannotRelocate`, also for a folder that can't be changed.
    """
    check_prefix(prefix)
    try:
        with _alone(folder):
            # An interrupted move may have had another target: it is finished first, and the tree is moved from there.
            changed = _finish(folder)
            _begin(folder, prefix)
            return changed + _finish(folder)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        if not os.path.lexists(os.path.join(folder, MOVING)) and not _is_changed(folder, prefix):
            return 0
        todo = "have it there" if error.errno == errno.EROFS else "let its owner run bin/lamella-unpack"
        raise CannotRelocate(
            f"{folder} can't be changed ({error.strerror}), and is made for {_held(folder)}: {todo}, or copy it to a folder "
            "that can be written"
        ) from error


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    import fcntl

    if not lists(folder):
        yield  # there is nothing to move
        return
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        # Not every network file system has locks; without one, two moves at the same time are as they were.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _begin(folder: str, prefix: str) -> None:
    import shutil

    moving = os.path.join(folder, MOVING)
    shutil.rmtree(moving, ignore_errors=True)
    paths: list[str] = []

    def write(path: str, content: bytes, mode: int) -> None:
        if not paths:
            os.mkdir(moving)
        beside = os.path.join(moving, str(len(paths)))
        with open(beside, "wb") as file:
            file.write(content)
        os.chmod(beside, mode)
        paths.append(path)

    complete = os.path.join(moving, "complete")
    try:
        relocate(folder, prefix, write)
        if paths:
            with open(complete + ".new", "w", encoding="utf-8") as file:
                json.dump(paths, file)
            os.rename(complete + ".new", complete)
    except BaseException:
        shutil.rmtree(moving, ignore_errors=True)
        raise


def _finish(folder: str) -> int:
    """Put the new files of a complete move in their places; their number, 0 without such a move."""
    import shutil

    moving = os.path.join(folder, MOVING)
    try:
        with open(os.path.join(moving, "complete"), encoding="utf-8") as file:
            paths: list[str] = json.load(file)
    except FileNotFoundError:
        return 0
    for number, path in sorted(enumerate(paths), key=lambda item: item[1] == PREFIX_FILE):
        beside = os.path.join(moving, str(number))
        # Files that were removed since the crash stay away.
        if os.path.exists(beside) and os.path.lexists(os.path.join(folder, path)):
            os.replace(beside, inside(folder, path))
    shutil.rmtree(moving)
    return len(paths)


def _is_changed(folder: str, prefix: str) -> bool:
    paths: list[str] = []
    relocate(folder, prefix, lambda path, *_: paths.append(path))
    return bool(paths)


def _held(folder: str) -> str:
    try:
        with open(os.path.join(folder, PREFIX_FILE), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return "another folder"
