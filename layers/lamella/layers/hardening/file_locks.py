"""Advisory locks of open files, on every system. Sources: flock(2); Microsoft's `_locking`."""

from __future__ import annotations

import contextlib
import errno
import sys
import time

_POLL = 0.05


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file; False if another process holds the lock. Closing the file ends it.

    Windows has no shared locks of this kind: there they are exclusive. Raises `OSError` if the file system has no locks.
    """
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EDEADLK):
                return False
            raise
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def wait_for_lock(descriptor: int) -> None:
    """Lock an open file once no other process holds the lock. Raises as `try_lock`."""
    while not try_lock(descriptor):
        time.sleep(_POLL)


def unlock(descriptor: int) -> None:
    """End the lock of an open file that stays open."""
    if sys.platform == "win32":
        import msvcrt

        with contextlib.suppress(OSError):
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        return
    import fcntl

    fcntl.flock(descriptor, fcntl.LOCK_UN)
