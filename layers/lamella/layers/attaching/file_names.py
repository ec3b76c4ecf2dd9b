"""Names of files that others wrote, and placing a file under one in a folder, through no link.

A name comes from anyone who may push to the repository. Source: image-spec v1.1, annotations.md,
org.opencontainers.image.title, which does not limit the characters of a name.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from lamella.layers.errors import ExportError, InvalidContent
from lamella.layers.oci.values import clean_text
from lamella.layers.text import escaped

_MAX_PARTS = 16
_MAX_PART = 255
"""Bytes: what file systems of Linux take."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
"""Answers of file systems without hard links."""


def checked_name(name: str) -> str:
    """Return `name` if it is a path of a file inside any folder, else raise `InvalidContent`."""
    parts = name.split("/")
    fits = clean_text(name) is not None and len(parts) <= _MAX_PARTS and name.isprintable() and "\\" not in name
    if not fits or not all(part not in ("", ".", "..") and len(part.encode()) <= _MAX_PART for part in parts):
        raise InvalidContent(f"{escaped(name, 100)}: not the name of a file inside a folder; refused")
    return name


def place(source: str, folder: str, name: str, *, force: bool) -> None:
    """Move the file `source` to `name` in `folder`, with the folders between, through no link below `folder`.

    Atomic: the file is whole under its name, or not there. `force`: replace a file. Both must be on one file system. Raises
    `ExportError` if something is in the way.
    """
    *folders, last = name.split("/")
    path = os.path.join(folder, name)
    try:
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in folders:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=at)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
                os.close(at)
                at = below
            if force or not _linked(source, last, at):
                os.rename(source, last, dst_dir_fd=at)
        finally:
            os.close(at)
    except OSError as error:
        raise _failure(error, path) from error


def _linked(source: str, name: str, folder: int) -> bool:
    """Give `source` another name unless that is taken; False if the file system can't."""
    try:
        os.link(source, name, dst_dir_fd=folder)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name) from None
        return False
    return True


def _failure(error: OSError, path: str) -> ExportError:
    problem = {
        errno.EEXIST: "already exists; name another folder, or replace it with --force",
        errno.EISDIR: "is a folder; remove it or name another folder",
        errno.ENOTEMPTY: "is a folder; remove it or name another folder",
        errno.ENOTDIR: "a file or link is where a folder should be; name another folder",
        errno.ELOOP: "a link is where a folder should be; name another folder",
        errno.ENAMETOOLONG: "the path is too long; name another folder",
        errno.ENOSPC: "the disk is full; free some space and fetch again",
        errno.EDQUOT: "the quota is used up; free some space and fetch again",
    }
    return ExportError(f"{path}: {problem.get(error.errno or 0, f'{error.strerror or error}; name another folder')}")
