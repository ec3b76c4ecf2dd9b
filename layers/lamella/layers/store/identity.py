"""Which folder it is, whatever its name: numbers of inodes are given again, so the time of its making belongs to it."""

from __future__ import annotations

import functools
import os
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Source: statx(2); Python has none.
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_BTIME = struct.Struct("=qI")
_BTIME_AT = 80
_SIZE = 256


def identity(path: str) -> str:
    """Name the folder at `path`; empty if it does not exist. Two folders of one path, one after another, have two names on
    file systems that know when a folder was made (ext4, xfs, btrfs, and tmpfs since Linux 6.7).
    """
    try:
        status = os.stat(path)
        made = _made(path)
    except OSError:
        return ""
    # The number of a device can be another one after the machine's restart.
    return f"{status.st_ino}:{made}" if made else f"{status.st_dev}/{status.st_ino}"


def _made(path: str) -> int:
    statx = _statx()
    if statx is None:
        return 0
    import ctypes

    buffer = ctypes.create_string_buffer(_SIZE)
    if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer) != 0:
        return 0
    if not struct.unpack_from("=I", buffer, 0)[0] & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _BTIME.unpack_from(buffer, _BTIME_AT)
    return int(seconds) * 10**9 + int(nanoseconds)


@functools.cache
def _statx() -> Callable[..., int] | None:
    import ctypes

    libc: Any = ctypes.CDLL(None, use_errno=True)
    statx: Any = getattr(libc, "statx", None)
    if statx is not None:
        statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
    return statx  # type: ignore[no-any-return]
