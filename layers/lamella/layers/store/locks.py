"""Locks between processes that a crash frees: flock(2) on files of the store."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


def acquire(path: str, *, wait: bool = True) -> int | None:
    """An open descriptor that holds `path`'s lock alone, or None where another has it and `wait` is False.

    Give it to `release`. The file exists only while somebody holds or waits for the lock.
    """
    while True:
        file = os.open(path, _OPEN, 0o644)
        if not try_lock(file, wait=wait):
            os.close(file)
            return None
        # The one before has removed the file: what was locked is not what the next one will open.
        if _is_at(file, path):
            return file
        os.close(file)


def release(file: int, path: str) -> None:
    """Lets the next one have the lock that `acquire` gave."""
    try:
        os.unlink(path)
    finally:
        os.close(file)


@contextmanager
def shared(path: str) -> Iterator[None]:
    """Holds the lock of a file that stays, together with others who share it; who may only read the file can, too."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


@contextmanager
def exclusive(path: str) -> Iterator[None]:
    """Holds the lock of a file that stays, alone."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def try_lock(file: int, *, wait: bool = False) -> bool:
    """Locks an open file alone; False where another has it and `wait` is False."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _is_at(file: int, path: str) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    here = os.fstat(file)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
