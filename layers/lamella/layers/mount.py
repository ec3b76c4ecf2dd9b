"""Environments that stay: put at a folder, seen by everybody, taken away again.

    <store>/mounts/<key>.json     what is at one target, claimed before anything is done there
    <store>/mounts/<key>/         the changes of a writable mount that are thrown away with it

A claim is written first and removed last, so that after a crash at any moment `umount` knows what to undo.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from lamella.layers import assemble, locks, lowers, preflight
from lamella.layers.assemble import METHODS, TREES, Rung
from lamella.layers.errors import MountError
from lamella.layers.kernel import MNT_DETACH, here
from lamella.layers.overlay import Upper
from lamella.layers.progress import Silent
from lamella.layers.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.assemble import Method
    from lamella.layers.kernel import Kernel
    from lamella.layers.progress import Progress
    from lamella.layers.published import PublishedEnvironment

_SILENT = Silent()


@dataclass(frozen=True, slots=True)
class Mounted:
    """One environment at one folder."""

    reference: str
    """Pinned by digest."""
    target: str
    """Absolute, without links."""
    method: str = ""
    """The rung that was taken, or that was being tried when a crash came."""
    whole: bool = False
    """Whether the environment is there; false only while it is being put there, and after a crash in the middle."""
    covers: int = 0
    """Mounts that were at the target before."""
    changes: str = ""
    """The folder that holds what is written to it; empty for a read-only one."""
    keeps_changes: bool = False
    """Whether `umount` leaves that folder."""
    created: str = ""
    """The topmost of the folders that were made for it, and go with it; empty where the target was there."""
    rungs: tuple[Rung, ...] = ()
    """What was tried, the one that was taken last."""


def mount(
    reference: str,
    target: str,
    *,
    store: Store | None = None,
    method: Method | None = None,
    writable: bool = False,
    changes: str = "",
    prefix: str = "",
    insecure: bool = False,
    progress: Progress = _SILENT,
    kernel: Kernel | None = None,
) -> Mounted:
    """Pulls what is missing of `reference` and puts the environment at `target`, an empty folder, made if it is missing.

    `method`: one rung of the ladder; None takes the best that works. `writable`: what is written goes to a layer of its
    own, thrown away by `umount`, or kept in the folder `changes` and found there by the next mount with it. `prefix`: the
    path by which programs will see the environment, if not `seen_at`. Raises `MountError`, and what `pull` raises; then
    everything is as it was.
    """
    from lamella.layers import pull

    def check(environment: PublishedEnvironment) -> None:
        # What another root's programs, or those behind `prefix`, have for a C library is not known here.
        if not prefix and seen_at(target, environment.prefix) == target:
            preflight.check(environment)

    kernel = kernel or here()
    store = store or Store()
    target = os.path.realpath(target)
    pulling = pull.leased(reference, store=store, insecure=insecure, progress=progress, check=check)
    with pulling as pulled, _alone(store, target):
        _finish(store, target, kernel)
        state = Mounted(
            pulled.reference,
            target,
            changes=os.path.realpath(changes) if changes else _state(store, target) if writable else "",
            keeps_changes=bool(changes),
            created=_topmost_missing(target),
            covers=kernel.mount_points().count(target),
        )
        _check_empty(state)
        at = prefix or seen_at(target, pulled.environment.prefix)
        folders = lowers.for_prefix(store, pulled.environment, at)
        rungs: tuple[Rung, ...] = ()
        try:
            _write(store, state)
            store.hold(_key(target), [layer.diff_id for layer in pulled.environment.layers])
            upper = _make_folders(state)
            for rung in (method,) if method else METHODS:
                state = replace(state, method=rung, rungs=rungs)
                # Before it is tried: what a crash leaves is undone by what is written here.
                _write(store, state)
                why_not = assemble.attempt(kernel, rung, folders, target, upper)
                rungs = (*rungs, Rung(rung, why_not))
                if not why_not:
                    state = replace(state, whole=True, rungs=rungs)
                    _write(store, state)
                    return state
            raise MountError(assemble.explanation(target, rungs))
        except BaseException:
            _undo(store, state, kernel)
            raise


def umount(target: str, *, store: Store | None = None, lazy: bool = False, kernel: Kernel | None = None) -> Mounted:
    """Takes the environment at `target` away, and whatever a crash left of one; gives what was there.

    `lazy`: also while programs still use it; what they have open goes on until they close it.
    """
    kernel = kernel or here()
    store = store or Store()
    target = os.path.realpath(target)
    state = _read(_state(store, target) + ".json")
    if state is None:
        raise MountError(f"there is no environment of the store {store.path} at {target}")
    with _alone(store, target):
        try:
            _undo(store, state, kernel, lazy=lazy)
        except OSError as error:
            why = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise MountError(f"{target} can't be taken away: {why}") from error
    return state


def seen_at(target: str, image_prefix: str) -> str:
    """The path by which programs see what is mounted at `target`: that, or the image prefix inside another root's folder.

    `/srv/root/opt/env` is `/opt/env` to those who chroot to `/srv/root`, if that is the root of a system.
    """
    root = target.removesuffix(image_prefix)
    inside = root != target and root and all(os.path.isdir(f"{root}/{name}") for name in ("usr", "etc"))
    return image_prefix if inside else target


def mounts(store: Store | None = None) -> tuple[Mounted, ...]:
    """Every environment that the store knows at a folder, sorted by that."""
    folder = f"{(store or Store()).path}/mounts"
    names = os.listdir(folder) if os.path.isdir(folder) else []
    found = (_read(f"{folder}/{name}") for name in names if name.endswith(".json"))
    return tuple(sorted((mounted for mounted in found if mounted), key=lambda mounted: mounted.target))


@contextmanager
def _alone(store: Store, target: str) -> Iterator[None]:
    # One process at a time changes what is at a target.
    store.prepare()
    path = f"{store.path}/locks/{_key(target)}"
    with store.explained():
        os.makedirs(f"{store.path}/mounts", exist_ok=True)
        lock = locks.acquire(path)
    try:
        yield
    finally:
        if lock is not None:
            locks.release(lock, path)


def _finish(store: Store, target: str, kernel: Kernel) -> None:
    # What a crash or the machine's restart left is cleared away; an environment that is there is not.
    state = _read(_state(store, target) + ".json")
    if state is None:
        return
    there = bool(os.listdir(target)) if state.method in TREES else kernel.mount_points().count(target) > state.covers
    if state.whole and there:
        raise MountError(f"{target} holds an environment already: take it away with lamella umount {target}")
    _undo(store, state, kernel)


def _check_empty(state: Mounted) -> None:
    try:
        if not state.created and os.listdir(state.target):
            raise MountError(f"{state.target} is not empty, and what is in it would be hidden: name an empty folder")
    except OSError as error:
        raise MountError(f"{state.target} can't be used: {error.strerror}") from error


def _make_folders(state: Mounted) -> Upper | None:
    folders = [state.target] if state.created else []
    upper = Upper(f"{state.changes}/upper", f"{state.changes}/work") if state.changes else None
    try:
        for folder in [*folders, *((upper.upper, upper.work) if upper else ())]:
            os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise MountError(f"{error.filename} can't be made: {error.strerror}") from error
    return upper


def _undo(store: Store, state: Mounted, kernel: Kernel, *, lazy: bool = False) -> None:
    """In the reverse order of `mount`; each step may have been done before, or never."""
    if state.method in TREES:
        assemble.empty(state.target)
    else:
        _unmount(state, kernel, lazy=lazy)
    if state.changes:
        # The kernel's own folder, of mode 0, is of no use to the next mount.
        shutil.rmtree(f"{state.changes}/work", ignore_errors=True)
        if not state.keeps_changes:
            shutil.rmtree(state.changes, ignore_errors=True)
    _remove_created(state)
    store.release(_key(state.target))
    with suppress(FileNotFoundError):
        os.unlink(_state(store, state.target) + ".json")


def _topmost_missing(path: str) -> str:
    missing = ""
    while not os.path.lexists(path):
        missing, path = path, os.path.dirname(path)
    return missing


def _remove_created(state: Mounted) -> None:
    path = state.target
    # Up to the topmost, as long as nobody has put anything into them.
    with suppress(OSError):
        while state.created and len(path) >= len(state.created):
            os.rmdir(path)
            path = os.path.dirname(path)


def _unmount(state: Mounted, kernel: Kernel, *, lazy: bool) -> None:
    # After a restart of the machine, or a crash before the mount, there is nothing at the target.
    try:
        for _ in range(kernel.mount_points().count(state.target) - state.covers):
            kernel.umount(state.target, MNT_DETACH if lazy else 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            why = "is in use: stop the programs that use it, or take it away lazily"
        else:
            why = f"can't be unmounted: {error.strerror}"
        raise MountError(f"{state.target} {why}") from error


def _key(target: str) -> str:
    return "mount-" + hashlib.sha256(os.fsencode(target)).hexdigest()[:16]


def _state(store: Store, target: str) -> str:
    return f"{store.path}/mounts/{_key(target)}"


def _write(store: Store, state: Mounted) -> None:
    path = _state(store, state.target) + ".json"
    with store.explained():
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(asdict(state), file, indent=1)
        os.rename(f"{path}.new", path)


def _read(path: str) -> Mounted | None:
    try:
        with open(path, encoding="utf-8") as file:
            value: dict[str, Any] = json.load(file)
        rungs = tuple(Rung(**rung) for rung in value.pop("rungs"))
        return Mounted(**value, rungs=rungs)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise MountError(
            f"{path} is not what Lamella writes: take the mount away by hand and remove the file"
        ) from error
