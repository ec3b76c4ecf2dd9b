"""One environment out of many layers' folders, without the kernel's help: a tree of links or copies.

Folders are given lowest first, as a manifest lists layers; where two hold one path, the later one's is taken.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import MountError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

How = Literal["hardlinks", "reflinks", "copies"]

_FICLONE = 0x40049409  # ioctl_ficlone(2)


def lay(folders: Sequence[str], target: str, how: How, done: Callable[[int], object] = lambda _: None) -> int:
    """Put the files of `folders` into `target`, an existing folder; return their number. `done` gets each folder's.

    Hardlinks share the bytes with the layers, so that who writes into one writes into the layer: they are for trees
    that stay unchanged. Raises `MountError` when the way is not open here, and leaves what it made to the caller.
    """
    place = _PLACE[how]
    try:
        return sum(_lay_folder(folder, target, place, done) for folder in folders)
    except OSError as error:
        raise MountError(_why(error, how, target)) from error


def lay_linked_or_copied(folders: Sequence[str], target: str) -> None:
    """Put the files of `folders` into `target`, as `lay` does, by hardlinks, or by copies if that is not possible."""
    try:
        lay(folders, target, "hardlinks")
    except MountError:
        lay(folders, target, "copies")


def place(source: str, target: str, how: How) -> None:
    """Put one file or link at `target`, a free path. Raises `MountError` if this way is not open here."""
    try:
        _PLACE[how](source, target)
    except OSError as error:
        raise MountError(_why(error, how, target)) from error


def put(folder: str, path: str, content: bytes, mode: int) -> None:
    """Write a file into a tree, at `path` below `folder`: what layers have in its way is removed, and no link followed."""
    *above, name = path.split("/")
    here = folder
    for part in above:
        here += "/" + part
        make_folder(here)
    there = f"{here}/{name}"
    remove(there)
    with open(there, "xb") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)


def make_folder(path: str) -> None:
    """Make a folder that everybody may read, whatever the umask, in the place of a file or a link that is there."""
    try:
        os.mkdir(path)
    except FileExistsError:
        if stat.S_ISDIR(os.lstat(path).st_mode):
            return
        os.unlink(path)
        os.mkdir(path)
    os.chmod(path, 0o755)


def remove(path: str) -> None:
    """Remove a file, a link, or a folder with all that is in it; no error if it does not exist."""
    import shutil

    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def _lay_folder(folder: str, target: str, place: Callable[[str, str], None], done: Callable[[int], object]) -> int:
    count = below = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            there = f"{target}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                make_folder(there)
                below += _lay_folder(entry.path, there, place, done)
                continue
            count += 1
            try:
                place(entry.path, there)
            except FileExistsError:
                remove(there)
                place(entry.path, there)
    done(count)
    return count + below


def _hardlink(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        # One empty __init__.py can be in more trees than an inode has links to give.
        if error.errno != errno.EMLINK:
            raise
        _copy(source, target)


def _reflink(source: str, target: str) -> None:
    import fcntl

    if os.path.islink(source):
        os.symlink(os.readlink(source), target)
        return
    with open(source, "rb") as content, open(target, "xb") as copy:
        os.fchmod(copy.fileno(), os.fstat(content.fileno()).st_mode & 0o777)
        fcntl.ioctl(copy.fileno(), _FICLONE, content.fileno())


def _copy(source: str, target: str) -> None:
    import shutil

    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
    # Times go with the bytes: a tool that compares them sees one file, not a newer one.
    shutil.copy2(source, target, follow_symlinks=False)


_PLACE: dict[How, Callable[[str, str], None]] = {"hardlinks": _hardlink, "reflinks": _reflink, "copies": _copy}


def _why(error: OSError, how: How, target: str) -> str:
    if error.errno == errno.EXDEV:
        return f"{how} can't reach from the store to {target}: both must be on one file system"
    if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL) and how == "reflinks":
        return f"the file system of {target} has no reflinks"
    if error.errno == errno.EPERM and how == "hardlinks":
        return f"this user may not make hardlinks to the store's files, which others own, in {target}"
    return f"no tree of {how} in {target}: {error.strerror}{f' ({error.filename})' if error.filename else ''}"
