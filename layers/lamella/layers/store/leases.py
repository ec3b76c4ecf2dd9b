"""What `gc` must not remove: leases of running processes, and holds of mounts, which outlive them.

A lease is a file of diff_ids that its process keeps locked, so that a crash frees it; a hold is such a file without a
lock. The store's one lock orders them against `gc`: whoever leases shares it while the file is made, `gc` has it alone
while it decides and renames. A layer that is seen after its lease was made is therefore there until the lease ends. Where the disk takes no file, the lease is
a shared lock of the folder of leases, and keeps everything.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent, StoreError
from lamella.layers.oci.documents import Digest
from lamella.layers.store import locks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.layers.store.store import Store

_TAKES_NO_FILE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_MAX_LEASE = 4 << 20
"""Bytes of one lease: other users write them, and 50,000 layers are enough."""


@contextmanager
def lease(store: Store, digests: Iterable[Digest], owner: str) -> Iterator[int]:
    """Keeps layers and documents until the block ends. `owner` says who, for people who look.

    Gives the descriptor that is the lease: a process that inherits it keeps the lease as long as it lives.
    """
    text = "".join(f"{line}\n" for line in (f"# {owner}", *digests))
    store.prepare()
    path = f"{store.path}/leases/{os.getpid()}-{os.urandom(6).hex()}"
    with store.explained(), locks.shared(f"{store.path}/lock"):
        file = _write_lease(path, text.encode())
    try:
        yield file
    finally:
        # One that can't be removed is seen to be nobody's.
        with suppress(OSError):
            os.unlink(path)
        os.close(file)


def _write_lease(path: str, content: bytes) -> int:
    file = -1
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        locks.try_lock(file)
        while content:
            content = content[os.write(file, content) :]
    except OSError as error:
        if file >= 0:
            os.close(file)
            os.unlink(path)
        if error.errno not in _TAKES_NO_FILE:
            raise
        # What is here runs from a full disk, too.
        return _keep_everything(os.path.dirname(path))
    return file


def _keep_everything(leases: str) -> int:
    folder = os.open(leases, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    # Who has it alone keeps everything as well, so that this one need not wait.
    with suppress(OSError):
        fcntl.flock(folder, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return folder


def everything_is_kept(store: Store) -> bool:
    """Whether a lease that found no room for its list keeps all that is here. The caller has the store's lock."""
    folder = os.open(f"{store.path}/leases", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return not locks.try_lock(folder)
    finally:
        os.close(folder)


def hold(store: Store, name: str, digests: Iterable[Digest], *, note: str = "", lasting: bool = True) -> None:
    """Keeps layers and documents until `release`; a second hold of one name replaces the first.

    `note`: a line for whoever holds. `lasting`: also through a loss of power, for which the disk is waited for.
    """
    text = "".join(f"{line}\n" for line in ((f"# {note}", *digests) if note else digests))
    path = _hold_path(store, name)
    store.prepare()
    temporary = f"{store.path}/holds/.{os.urandom(6).hex()}"
    with store.explained(), locks.shared(f"{store.path}/lock"):
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def release(store: Store, name: str) -> None:
    """Ends a hold; no error where there is none."""
    with store.explained():
        try:
            os.unlink(_hold_path(store, name))
        except FileNotFoundError:
            return


def note(store: Store, name: str) -> str | None:
    """The note of a hold, empty where it has none, or None where there is no such hold."""
    try:
        with open(_hold_path(store, name), encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except FileNotFoundError:
        return None
    return first[2:].rstrip("\n") if first.startswith("# ") else ""


def kept(store: Store) -> set[Digest]:
    """Every layer and document that is leased or held by name. The caller has the store's lock; leases of the dead are removed."""
    layers: set[Digest] = set()
    for name in os.listdir(f"{store.path}/leases"):
        layers |= _living(f"{store.path}/leases/{name}")
    for name in os.listdir(f"{store.path}/holds"):
        # A hold that is being written waits for the lock; one that is here now was left by a crash.
        if not name.startswith("."):
            # Whoever releases one has no lock.
            with suppress(FileNotFoundError), open(f"{store.path}/holds/{name}", encoding="utf-8") as file:
                layers |= _parse(file.read())
    return layers


def _living(path: str) -> set[Digest]:
    # Any user of the node may have put anything here: a link, a FIFO, a file without an end.
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return set()
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return set()
        if locks.try_lock(file):
            with suppress(OSError):
                os.unlink(path)
            return set()
        return _parse(os.read(file, _MAX_LEASE).decode("utf-8", "replace"))
    finally:
        os.close(file)


def _parse(text: str) -> set[Digest]:
    layers = set()
    for line in text.splitlines():
        with suppress(InvalidContent):
            layers.add(Digest.parse(line))
    return layers


def _hold_path(store: Store, name: str) -> str:
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        raise StoreError(f"{name!r}: invalid name of a hold; use a file name without a leading dot")
    return f"{store.path}/holds/{name}"
