"""Names in folders that a loss of power must not take. Source: fsync(2)."""

from __future__ import annotations

import errno
import os


def sync_folder(path: str) -> None:
    """Make the names in a folder durable, if this user may read it and the file system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return  # Windows opens no folders, and writes their names itself
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}:
            raise
    finally:
        os.close(descriptor)
