"""The agent's socket and folder, each for one agent alone: by locks, which the kernel frees when an agent dies."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import Busy, LayersError
from lamella.layers.hardening.permissions import make_folders
from lamella.layers.store import locks

if TYPE_CHECKING:
    from collections.abc import Iterator

_BACKLOG = 256


@contextmanager
def alone(path: str, what: str) -> Iterator[None]:
    """Lock `path`, a file that is made for it, until the block ends. Raises `Busy` if another agent has it.

    `what` names it in the message.
    """
    file = _opened(path)
    try:
        if not locks.try_lock(file):
            raise Busy(f"{what}: in use by {locks.holder(path)[0]}; stop that agent, or choose another path")
        locks.sign(file, "lamella agent")
        yield
    finally:
        # The file stays: an agent that waits for it must not lock one that was removed.
        os.close(file)


def _opened(path: str) -> int:
    try:
        make_folders(os.path.dirname(os.path.abspath(path)))
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise LayersError(f"{path}: {error.strerror}; choose a folder that the agent can write") from error


@contextmanager
def listening(path: str, mode: int) -> Iterator[socket.socket]:
    """Listen on a Unix socket at `path`, with these permissions, and remove it afterwards.

    The caller is `alone` at the path: a socket that is there is a dead agent's, and is replaced. Raises `LayersError`.
    """
    listener = socket.socket(socket.AF_UNIX)
    try:
        try:
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(os.lstat(path).st_mode):
                    raise LayersError(f"--socket {path}: not a socket; remove it, or choose another path")
                os.unlink(path)
            # By the umask: chmod(2) would follow a link that another user puts in its place.
            before = os.umask(0o777 & ~mode)
            try:
                listener.bind(path)
            finally:
                os.umask(before)
            listener.listen(_BACKLOG)
        except OSError as error:
            # A path of more than 107 bytes has no errno.
            raise LayersError(f"--socket {path}: {error.strerror or error}; choose another path") from error
        try:
            yield listener
        finally:
            with suppress(OSError):
                os.unlink(path)
    finally:
        listener.close()
