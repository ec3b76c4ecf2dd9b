"""Leases of running processes and holds of mounts, which name the layers that `gc` must not remove.

A lease is a file of diff_ids that its process keeps locked, so that a crash frees it; a hold, which outlives its process,
is such a file without a lock. Any user may lease in root's store, and only its owner may remove layers. `paused` orders
the two, without a lock that a reader could take from the owner: it locks byte 0 of the store's lock file for writing,
reads the leases, and lets the caller remove layers. A lease is written first, then waits for that lock to be free, so one
of the two sees the other: a layer that is seen after its lease was made is there until the lease ends.

On a full disk a lease is a set of byte ranges of the folder of leases, one for each digest, which need no space.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import Busy, InvalidContent, StoreError
from lamella.layers.hardening.durable import sync_folder
from lamella.layers.hardening.permissions import is_shared_folder
from lamella.layers.oci.documents import Digest
from lamella.layers.store import locks
from lamella.layers.text import escaped

if sys.platform != "win32":  # imported there by programs that push, and not used
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.layers.store.store import Store

_TAKES_NO_FILE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
_MAX_LEASE = 4 << 20
"""Bytes of one lease: other users write them, and 50,000 layers are enough."""
_MAX_OWNER = 200
_GATE = 0
"""The byte of the store's lock file that is locked while layers may be removed."""


@contextmanager
def lease(store: Store, digests: Iterable[Digest], owner: str) -> Iterator[int]:
    """Keep layers and documents until the block ends. `owner`: the work, for messages.

    Yields the descriptor of the lease: a process that inherits it keeps the lease as long as it lives.
    """
    digests = tuple(digests)
    text = "".join(f"{line}\n" for line in (f"# {owner}", *digests))
    store.prepare()
    with store.explained():
        file, path = _write_lease(f"{store.path}/leases", text.encode("utf-8", "replace"), digests)
    try:
        with store.explained():
            _wait_for_gate(store)
        yield file
    finally:
        # A file that stays is not locked, and so names no process.
        if path:
            with suppress(OSError):
                os.unlink(path)
        os.close(file)


def _write_lease(folder: str, content: bytes, digests: Iterable[Digest]) -> tuple[int, str]:
    while True:
        name = f"{os.getpid()}-{os.urandom(6).hex()}"
        file = -1
        try:
            # Closed to others until it is locked, and only then under a name that counts.
            file = os.open(f"{folder}/.{name}", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX)
            left = content
            while left:
                left = left[os.write(file, left) :]
            os.fchmod(file, 0o644)
            os.rename(f"{folder}/.{name}", f"{folder}/{name}")
        except FileNotFoundError:
            os.close(file)  # `gc` saw it before it was locked
        except OSError as error:
            if file >= 0:
                os.close(file)
                with suppress(FileNotFoundError):
                    os.unlink(f"{folder}/.{name}")
            if error.errno not in _TAKES_NO_FILE:
                raise
            # An environment that is here runs from a full disk.
            return _share_ranges(folder, digests), ""
        else:
            return file, f"{folder}/{name}"


def _share_ranges(folder: str, digests: Iterable[Digest]) -> int:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for digest in digests:
            locks.share_range(file, _byte_of(digest))
    except BaseException:
        os.close(file)
        raise
    return file


def _byte_of(digest: Digest) -> int:
    return int(digest.hex[:15], 16)


def _wait_for_gate(store: Store) -> None:
    path = f"{store.path}/lock"

    def is_open() -> bool | None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            return None if locks.is_excluded(file, _GATE) else True
        finally:
            os.close(file)

    locks.patiently(is_open, f"the store {store.path}", lambda: locks.holder(path))


@contextmanager
def paused(store: Store, owner: str) -> Iterator[None]:
    """Hold back new leases and holds until the block ends, so that layers that are not `kept` can be removed.

    `owner`: the work, for messages of processes that wait. The store is this user's.
    """
    with locks.exclusive(f"{store.path}/partial", f"the store {store.path}", f"{store.path}/lock"):
        gate = _close_gate(store)
        try:
            locks.sign(gate, owner)
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(gate, 0)
            locks.free_range(gate, _GATE)
            os.close(gate)


def _close_gate(store: Store) -> int:
    path = f"{store.path}/lock"
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    if locks.try_exclude_range(file, _GATE):
        return file
    os.close(file)
    # Lamella locks it only in `paused`, which is not running: a stranger has it. A new file has no lock: a lease that was
    # written before the rename is read after it, and a later one sees the new file's lock.
    temporary = f"{store.path}/partial/document-{os.urandom(6).hex()}"
    try:
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in _TAKES_NO_FILE:
            raise
        raise Busy(f"{path}: locked by {locks.users(path)}; end that process, then retry") from error
    locks.try_exclude_range(file, _GATE)
    os.fchmod(file, 0o664 if is_shared_folder(store.path) else 0o644)
    os.rename(temporary, path)
    return file


def hold(store: Store, name: str, digests: Iterable[Digest], *, note: str = "", lasting: bool = True) -> None:
    """Keep layers and documents until `release`; a second hold of one name replaces the first, atomically.

    `note`: one line for its owner. `lasting`: sync it, so that it survives a loss of power. The layers are leased.
    """
    text = "".join(f"{line}\n" for line in ((f"# {note}", *digests) if note else digests))
    path = _hold_path(store, name)
    store.prepare()
    temporary = f"{store.path}/holds/.{os.urandom(6).hex()}"
    with store.explained(), locks.shared(f"{store.path}/partial", f"the store {store.path}", f"{store.path}/lock"):
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                if lasting:
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(temporary, path)
            if lasting:
                sync_folder(os.path.dirname(path))
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def release(store: Store, name: str) -> None:
    """End a hold. Idempotent."""
    with store.explained():
        try:
            os.unlink(_hold_path(store, name))
        except FileNotFoundError:
            return


def note(store: Store, name: str) -> str | None:
    """Return the note of a hold, empty without one, or None without such a hold."""
    try:
        with open(_hold_path(store, name), encoding="utf-8", errors="replace") as file:
            first = file.readline()
    except FileNotFoundError:
        return None
    return first[2:].rstrip("\n") if first.startswith("# ") else ""


def held(store: Store, name: str) -> tuple[Digest, ...]:
    """Return the layers and documents of a hold; none without such a hold."""
    try:
        with open(_hold_path(store, name), encoding="utf-8") as file:
            return tuple(sorted(_parse(file.read()), key=str))
    except FileNotFoundError:
        return ()


def kept(store: Store, among: Iterable[Digest] = ()) -> dict[Digest, str]:
    """Every layer and document that is leased or held, with its user: a process, or the name of a hold.

    A lease that found the disk full counts only for `among`. Removes leases of dead processes.
    """
    found = {digest: user for user, digests in users(store) for digest in digests}
    return found | _in_ranges(f"{store.path}/leases", among)


def users(store: Store) -> Iterator[tuple[str, set[Digest]]]:
    """Each process with a lease, and each hold by its name, with its layers and documents. Removes leases of dead processes."""
    for name in os.listdir(f"{store.path}/leases"):
        if living := _living(f"{store.path}/leases/{name}"):
            yield living
    for name in os.listdir(f"{store.path}/holds"):
        # A name with a dot is being written, or was left by a crash. A hold can be released at any time.
        if not name.startswith("."):
            with suppress(FileNotFoundError), open(f"{store.path}/holds/{name}", encoding="utf-8") as file:
                yield name, _parse(file.read())


def remove_dead(store: Store) -> None:
    """Remove the leases of dead processes, as far as this user may."""
    for name in os.listdir(f"{store.path}/leases"):
        _living(f"{store.path}/leases/{name}")


def _living(path: str) -> tuple[str, set[Digest]] | None:
    """Return the user and the digests of a lease; None if its process is dead."""
    # Any user of the node may have put anything here: a link, a FIFO, a file without an end.
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            return None
        if locks.try_lock(file):
            with suppress(OSError):
                os.unlink(path)
            return None
        text = os.read(file, _MAX_LEASE).decode("utf-8", "replace")
    finally:
        os.close(file)
    owner = text.partition("\n")[0].removeprefix("# ")
    process = os.path.basename(path).lstrip(".").partition("-")[0]
    name = f"{escaped(owner, _MAX_OWNER)} (process {escaped(process, 20)} of {locks.user(status.st_uid)})"
    return name, _parse(text)


def _in_ranges(leases: str, among: Iterable[Digest]) -> dict[Digest, str]:
    folder = os.open(leases, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not locks.is_shared(folder):
            return {}
        user = locks.users(leases)
        return {digest: user for digest in among if locks.is_shared(folder, _byte_of(digest), 1)}
    finally:
        os.close(folder)


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
