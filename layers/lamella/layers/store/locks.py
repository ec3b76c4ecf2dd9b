"""Locks between processes, which a crash frees, and waits that report their reason and end.

A user who may only read a store must not be able to stop its owner. flock(2) takes any open file, so it is used only
below folders that are closed to other users. Byte ranges (fcntl(2), F_OFD_SETLK) can be locked exclusively only through a
descriptor that may write: they order the owner's work against readers.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from lamella.layers.errors import Busy
from lamella.layers.hardening.permissions import is_shared_folder
from lamella.layers.text import escaped, seconds

if sys.platform != "win32":  # imported there by programs that push, and not used
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds to wait for a process that shows no progress."""
POLL = 0.02
"""Seconds between two tries: a process that blocks in flock(2) ends neither in time nor with its other threads."""
_SILENT = 2.0
if sys.platform != "win32":
    _OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_MAX_HOLDER = 500
# struct flock, with off_t of 64 bits: type, whence, start, length, process; filled up to its alignment.
_RANGE = struct.Struct("@hhqqi4x")


def try_acquire(path: str, owner: str) -> int | None:
    """Lock `path` exclusively: an open descriptor for `release`, or None if another process holds the lock.

    The file exists only while it is locked, and holds the process number and `owner` for those who wait. Its folder is
    closed to other users.
    """
    while True:
        file = os.open(path, _OPEN, 0o644)
        _share(file, path)
        if not try_lock(file):
            os.close(file)
            return None
        # The last holder removed the file: the next process would open another one.
        if _is_at(file, path):
            sign(file, owner)
            return file
        os.close(file)


def _share(file: int, path: str) -> None:
    # Another member of the group opens it for writing, too.
    seen = os.fstat(file)
    if seen.st_uid == os.geteuid() and not seen.st_mode & 0o020 and is_shared_folder(os.path.dirname(path)):
        os.fchmod(file, 0o664)


def acquire(path: str, owner: str, what: str) -> int:
    """As `try_acquire`, but wait for other processes. Raises `Busy`, which begins with `what`, after `PATIENCE`."""
    return patiently(lambda: try_acquire(path, owner), what, lambda: holder(path))


def release(file: int, path: str) -> None:
    """Unlock what `acquire` locked."""
    try:
        os.unlink(path)
    finally:
        _unlock(file)


def _unlock(file: int) -> None:
    # Closing is not enough: a child that another thread forked has the descriptor until it executes a program.
    fcntl.flock(file, fcntl.LOCK_UN)
    os.close(file)


@contextmanager
def shared(folder: str, what: str, signed: str) -> Iterator[None]:
    """Hold the lock of a folder together with others; `signed`: a file that its exclusive holder signs. Raises `Busy`."""
    with _folder_locked(folder, fcntl.LOCK_SH, what, signed):
        yield


@contextmanager
def exclusive(folder: str, what: str, signed: str) -> Iterator[None]:
    """Hold the lock of a folder alone; `signed` as for `shared`. Raises `Busy` after `PATIENCE`."""
    with _folder_locked(folder, fcntl.LOCK_EX, what, signed):
        yield


@contextmanager
def _folder_locked(folder: str, how: int, what: str, signed: str) -> Iterator[None]:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        patiently(lambda: _flock(file, how) or None, what, lambda: holder(signed))
        yield
    finally:
        _unlock(file)


def try_lock(file: int) -> bool:
    """Lock an open file exclusively, by flock(2); False if it is locked."""
    return _flock(file, fcntl.LOCK_EX)


def sign(file: int, owner: str) -> None:
    """Write to an open lock file who holds it. Left out on a full disk."""
    with suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {owner}\n".encode("utf-8", "replace"), 0)


def holder(path: str) -> tuple[str, int]:
    """Who signed a lock file, for a message, and when that process last touched it (`os.utime`)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(_MAX_HOLDER).rstrip("\n")
            touched = os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return "another process", 0
    number, _, owner = text.partition(" ")
    return (f"process {number} ({escaped(owner)})" if number.isdecimal() else "another process"), touched


def patiently(
    attempt: Callable[[], T | None],
    what: str,
    look: Callable[[], tuple[str, int]],
    *,
    pause: Callable[[float], object] = time.sleep,
) -> T:
    """Call `attempt` until it returns a value. `look` names the process that is waited for, and any sign of its progress.

    Logs a warning after two seconds. Raises `Busy`, which begins with `what`, if `look` returns the same for
    `PATIENCE` seconds.
    """
    if (found := attempt()) is not None:
        return found
    seen = look()
    started = since = time.monotonic()
    reported = False
    while (found := attempt()) is None:
        now = time.monotonic()
        if (latest := look()) != seen:
            seen, since = latest, now
        elif now - since > PATIENCE:
            raise Busy(
                f"{what}: locked for {seconds(now - started)} by {seen[0]}, without progress; end that process, then retry"
            )
        if not reported and now - started > _SILENT:
            _warn(f"{what}: waiting for {seen[0]}")
            reported = True
        pause(POLL)
    return found


def _warn(message: str) -> None:
    import logging

    # Reaches standard error unless the program configures logging.
    logging.getLogger(__name__).warning(message)


def share_range(file: int, start: int) -> None:
    """Lock the byte at `start` for reading, until `file` is closed by each process that has it. Never waits.

    The byte need not exist, and no disk space is used.
    """
    _range(file, fcntl.F_OFD_SETLK, fcntl.F_RDLCK, start, 1)


def try_exclude_range(file: int, start: int) -> bool:
    """Lock the byte at `start` for writing; False if another descriptor has it locked. `file` is open for writing."""
    try:
        _range(file, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, start, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def free_range(file: int, start: int) -> None:
    """Unlock the byte at `start`, also for processes that inherited `file`."""
    _range(file, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, start, 1)


def is_shared(file: int, start: int = 0, length: int = 0) -> bool:
    """Whether another descriptor has locked any of these bytes; a `length` of 0 means all from `start` on."""
    return _range(file, fcntl.F_OFD_GETLK, fcntl.F_WRLCK, start, length) != fcntl.F_UNLCK


def is_excluded(file: int, start: int) -> bool:
    """Whether another descriptor has locked the byte at `start` for writing. Locks nothing."""
    return _range(file, fcntl.F_OFD_GETLK, fcntl.F_RDLCK, start, 1) != fcntl.F_UNLCK


def users(path: str) -> str:
    """The processes that have `path` open, as far as this user may see them, for a message."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and int(name) != os.getpid() and _has_open(name, path):
            with suppress(OSError):
                found.append(f"process {name} of {user(os.stat(f'/proc/{name}').st_uid)}")
    return ", ".join(found) or "an unknown process"


def user(uid: int) -> str:
    """The name of a user for a message."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _has_open(process: str, path: str) -> bool:
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{process}/fd/{name}") == path:
                    return True
    return False


def _range(file: int, command: int, kind: int, start: int, length: int) -> int:
    asked = _RANGE.pack(kind, os.SEEK_SET, start, length, 0)
    return int(_RANGE.unpack(fcntl.fcntl(file, command, asked))[0])


def _flock(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(file: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
