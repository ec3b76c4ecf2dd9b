"""Records of mounts, written before the mount is made, so that the next command after a crash can undo it.

    <store>/holds/mount-<key>    the claim (`Mounted`, as JSON behind a #), and what `gc` must not remove meanwhile
    <store>/mounts/<key>/        the changes of a writable mount that are thrown away with it

A path means what it does in one mount namespace below one root, and several may share a store (a folder of the node
that many pods see): a claim belongs to the namespace that made it, and no other one ends it unless it is dead.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lamella.layers.mounting.ladder import TREES, Rung
from lamella.layers.store import leases, locks
from lamella.layers.store.identity import identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.oci.documents import Digest
    from lamella.layers.store.store import Store

_PREFIX = "mount-"
_FIRST_PROCESSES = "pid:[4026531836]"
"""The process namespace that the machine started with, from which every process is seen (PROC_PID_INIT_INO)."""


@dataclass(frozen=True, slots=True)
class Mounted:
    """One environment at one folder."""

    reference: str
    """Pinned by digest."""
    target: str
    """Absolute, without links."""
    method: str = ""
    """The rung that was taken, or that was being tried when a crash came; empty where the claim can't be read."""
    whole: bool = False
    """Whether the environment is there, if anything is: a tree is not while it is laid, and after a crash in the middle."""
    changes: str = ""
    """The folder that holds its changes; empty for a read-only one."""
    keeps_changes: bool = False
    """Whether `umount` leaves that folder."""
    created: str = ""
    """The topmost of the folders that were made for it, and go with it; empty where the target was there."""
    rungs: tuple[Rung, ...] = ()
    """The rungs that were tried, the chosen one last."""
    namespace: str = ""
    """Where the target is a path: see `namespace_here`."""
    identity: str = ""
    """Of the folder that is seen at the target, for a tree and for a bind mount; an overlay has a source instead."""
    prefix: str = ""
    """The path by which programs see the environment."""
    replacing: bool = False
    """Whether it is being put in place of another one: after a crash, either can be at the target."""

    def __repr__(self) -> str:
        return f"<Mounted {self.reference} at {self.target} by {self.method or 'nothing'}>"

    @property
    def key(self) -> str:
        """Name the claim."""
        return key_of(self.namespace, self.target)

    @property
    def source(self) -> str:
        """What /proc/mounts shows as the device of an overlay: by this it is known, whatever else is mounted there."""
        return source_of(self.key)


def key_of(namespace: str, target: str) -> str:
    """Name the claim of a target in a namespace."""
    return hashlib.sha256(os.fsencode(f"{namespace}\n{target}")).hexdigest()[:16]


def hold_name(key: str) -> str:
    """The name of a claim's hold in the store."""
    return _PREFIX + key


def source_of(key: str) -> str:
    """See `Mounted.source`."""
    return f"lamella-{key}"


def namespace_here() -> str:
    """This process's mount namespace and root, which no other has until the machine starts again."""
    root = os.stat("/")
    try:
        mounts = str(os.stat("/proc/self/ns/mnt").st_ino)
    except OSError:
        mounts = ""  # without /proc nothing is known of others
    return f"{_boot()}/{mounts}/{root.st_dev}-{root.st_ino}"


def write(store: Store, state: Mounted, keep: Iterable[Digest]) -> None:
    """Claim, or change a claim; `keep` are layers and documents that `gc` must leave until `forget`."""
    # A tree outlives a loss of power, and so must its claim. A mount does not, and fsync takes as long as all of a mount:
    # a torn claim is read as one without a method.
    leases.hold(store, hold_name(state.key), keep, note=json.dumps(asdict(state)), lasting=state.method in TREES)


def forget(store: Store, state: Mounted) -> None:
    """End a claim, and remove changes that `umount` discards. Idempotent."""
    shutil.rmtree(changes_of(store, state.key), ignore_errors=True)
    leases.release(store, hold_name(state.key))


def changes_of(store: Store, key: str) -> str:
    """Where the changes of a mount are that are thrown away with it."""
    return f"{store.path}/mounts/{key}"


def claims(store: Store) -> Iterator[Mounted]:
    """Every claim of the store that can be read, of whatever namespace."""
    folder = f"{store.path}/holds"
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        state = _read(store, name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None
        if state and state.method:
            yield state


def users(store: Store) -> dict[str, str]:
    """Each mount, as a user of its layers for a message, by the name of its hold."""
    return {hold_name(state.key): f"mount at {state.target}" for state in claims(store)}


def find(
    store: Store, target: str, kernel: Kernel, known: Callable[[], Iterable[Mounted]] | None = None
) -> Mounted | None:
    """Return the claim of the present or past mount at `target` as seen from here. `known`: the store's claims, if read."""
    here = namespace_here()
    if mine := _read(store, key_of(here, target), here, target):
        return mine
    for state in known() if known else claims(store):
        if state.target != target:
            continue
        # A tree is seen by everybody who sees its folder; a mount by those to whom it was propagated.
        if is_there(state, kernel) or is_of_another_boot(state.namespace):
            return state
    return None


def current(store: Store, state: Mounted) -> Mounted | None:
    """That claim as it was written last."""
    return _read(store, state.key, state.namespace, state.target)


def is_there(state: Mounted, kernel: Kernel) -> bool:
    """Whether the target now holds the claimed mount or tree: a folder of that name is not enough."""
    if state.method in TREES:
        return bool(state.identity) and identity(state.target) == state.identity
    if state.identity and not state.replacing:
        return bool(kernel.sources(state.target)) and identity(state.target) == state.identity
    return state.source in kernel.sources(state.target)


def is_alive_elsewhere(state: Mounted) -> bool:
    """Whether that mount may exist although `is_there` does not see it: in another namespace, or moved with a folder
    above it. A tree is in its folder, for everybody.
    """
    if state.method in TREES or is_of_another_boot(state.namespace):
        return False
    if _is_seen(state.source, "self"):
        return True
    if state.namespace == namespace_here():
        return False
    # A bind mount has no source of its own.
    return (
        bool(state.identity)
        or not sees_every_process()
        or any(_is_seen(state.source, name) for name in os.listdir("/proc") if name.isdecimal())
    )


def forget_dead(store: Store, kernel: Kernel) -> None:
    """End the claims of mounts that are certainly gone: by umount(8) or rm(1), with their namespace, or by a restart."""
    for found in tuple(claims(store)):
        lock_path = f"{store.path}/locks/{lock_name(found.target)}"
        try:
            lock = locks.try_acquire(lock_path, "gc")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # The lock's file is new, so no mount is in progress, and none can write a claim meanwhile.
            with leases.paused(store, "gc"):
                _forget_if_dead(store, found, kernel)
            continue
        if lock is None:
            continue  # a mount or umount is in progress
        try:
            _forget_if_dead(store, found, kernel)
        finally:
            locks.release(lock, lock_path)


def _forget_if_dead(store: Store, found: Mounted, kernel: Kernel) -> None:
    state = current(store, found)  # changed before the lock was free
    if state is None:
        return
    # The files of a tree in another namespace are not visible from here. Its claim is all that would be lost.
    known = state.namespace == namespace_here() or state.method not in TREES or is_of_another_boot(state.namespace)
    # Trees in the store's own folder are visible to all who share the store, as pods of one node do.
    seen = known or _is_in(store, state)
    if seen and not is_there(state, kernel) and not is_alive_elsewhere(state):
        forget(store, state)


def lock_name(path: str) -> str:
    """The lock for changes of a folder's mount."""
    return f"at-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"


def _read(store: Store, key: str, namespace: str = "", target: str = "") -> Mounted | None:
    note = leases.note(store, _PREFIX + key)
    if note is None:
        return None
    try:
        value: dict[str, Any] = json.loads(note)
        rungs = tuple(Rung(**rung) for rung in value.pop("rungs"))
        return Mounted(**value, rungs=rungs)
    except (ValueError, KeyError, TypeError):
        return Mounted("", target, namespace=namespace)


@functools.cache
def _boot() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def kept(store: Store, state: Mounted) -> tuple[Digest, ...]:
    """What the claim keeps from `gc`."""
    return leases.held(store, hold_name(state.key))


def is_of_another_boot(namespace: str) -> bool:
    """Whether `namespace` ended with a restart of the machine."""
    then, now = (each.partition("/")[0] for each in (namespace, namespace_here()))
    return bool(then and now) and then != now


def _is_in(store: Store, state: Mounted) -> bool:
    return state.target.startswith(f"{os.path.realpath(store.path)}/")


def sees_every_process() -> bool:
    """Whether this process sees every process of the machine, and so every mount namespace that has one."""
    with suppress(OSError):
        return os.geteuid() == 0 and os.readlink("/proc/self/ns/pid") == _FIRST_PROCESSES
    return False


def _is_seen(source: str, process: str) -> bool:
    with suppress(OSError), open(f"/proc/{process}/mountinfo", "rb") as file:
        return f" {source} ".encode() in file.read()
    return False  # it has ended
