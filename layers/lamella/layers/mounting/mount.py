"""Environments that stay: put at a folder, seen by everybody, taken away again.

A target is claimed before anything is done there (`claims`), and the claim is removed last, so that `umount` can undo a
mount after a crash at any moment. Files at the target that Lamella did not put there are left alone.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers.errors import MountError
from lamella.layers.hardening.permissions import foreign_link, make_folder
from lamella.layers.mounting import claims, ladder, lowerdirs
from lamella.layers.mounting.claims import Mounted
from lamella.layers.mounting.kernel import MNT_DETACH, here
from lamella.layers.mounting.ladder import METHODS, TREES, Rung
from lamella.layers.mounting.overlay import Upper
from lamella.layers.progress.display import Silent
from lamella.layers.published import preflight
from lamella.layers.settings.trust import Trust
from lamella.layers.store import locks
from lamella.layers.store.identity import identity
from lamella.layers.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.mounting.ladder import Method
    from lamella.layers.oci.documents import Digest
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.pulling.pull import Pulled

_SILENT = Silent()


def _ignore(_: str) -> None:
    """Discard the sentence."""


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount."""

    method: Method | None = None
    """One rung of the ladder; None for the best that works."""
    writable: bool = False
    """Accept changes, and delete them on `umount`. Also if `changes` is given."""
    changes: str = ""
    """Folder that keeps the changes; the next mount with the same folder sees them. Needs a mount, never a tree."""
    prefix: str = ""
    """Path by which programs see the environment; by default the target, or what `seen_at` says."""
    elsewhere: bool = False
    """Programs run in another container: check this machine's CPU, not this system's C library and drivers."""


def mount(
    reference: str,
    target: str,
    *,
    options: MountOptions = MountOptions(),
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
    notify: Callable[[str], object] = _ignore,
) -> Mounted:
    """Pull the missing layers of `reference` and mount the environment at `target`, an empty or missing folder.

    Idempotent: the same environment at the target, without changes, is left as it is. `notify` gets one sentence for each
    need of a part of the environment that this machine lacks. Raises `MountError`, `Unsupported` if the environment can't
    run on this machine, and what `pull` raises; then the target is as it was.
    """
    from lamella.layers.pulling import pull

    target = resolved(target)
    store, kernel = store or Store(), here()
    _check_options(options, target, store, kernel)

    def check(environment: PublishedEnvironment) -> None:
        # What another root's programs, or those behind `prefix`, have for a C library is not known here.
        if not options.prefix and seen_at(target, environment.prefix) == target:
            preflight.check(environment, elsewhere=options.elsewhere)
            for note in () if options.elsewhere else preflight.notes(environment):
                notify(note)

    with pull.leased(reference, store=store, trust=trust, progress=progress, check=check) as pulled:
        return place(pulled, target, options, store=store, kernel=kernel)


def _check_options(options: MountOptions, target: str, store: Store, kernel: Kernel) -> None:
    """Raise `MountError` for what `place` would refuse, whatever the environment: before a download."""
    if options.prefix and not os.path.isabs(options.prefix):
        raise MountError(f"--prefix {options.prefix}: not an absolute path; use one such as /opt/env", code="invalid")
    if options.changes and os.path.exists(changes := resolved(options.changes)) and not os.path.isdir(changes):
        raise MountError(f"--changes {options.changes}: not a directory; use another folder", code="invalid")
    try:
        _check_empty(target, _topmost_missing(target))
    except MountError:
        # Looked for afterwards: a mount that another process makes now is claimed before there is anything of it.
        if not claims.find(store.writable(), target, kernel):
            raise


def resolved(path: str) -> str:
    """Return `path` without symlinks. Raises `MountError` for one of another user, who would choose where to mount."""
    if problem := foreign_link(path):
        raise MountError(f"{path}: {problem}")
    return os.path.realpath(path)


def place(pulled: Pulled, target: str, options: MountOptions, *, store: Store, kernel: Kernel) -> Mounted:
    """Mount the `pulled` environment, whose layers the caller has leased, at `target`. See `mount`."""
    home = store.writable()
    target = resolved(target)
    changes = resolved(options.changes) if options.changes else ""
    namespace = claims.namespace_here()
    thrown_away = claims.changes_of(home, claims.key_of(namespace, target)) if options.writable and not changes else ""
    prefix = options.prefix or seen_at(target, pulled.environment.prefix)
    wanted = Mounted(
        pulled.reference,
        target,
        changes=changes or thrown_away,
        keeps_changes=bool(changes),
        namespace=namespace,
        prefix=prefix,
    )
    # Read once: each is a file.
    known = functools.cache(lambda: tuple(claims.claims(home)))
    with alone(home, target, changes):
        state = claims.find(home, target, kernel, known)
        if state and (there := _finish(home, state, wanted, options.method, kernel)):
            return there
        state = replace(wanted, created=_topmost_missing(target))
        _check_empty(target, state.created)
        if changes:
            _check_changes(known(), state, kernel)
        folders = lowerdirs.for_prefix(store, pulled.environment, prefix, writable=bool(state.changes))
        new_changes = _topmost_missing(f"{changes}/upper") if changes else ""
        methods = (options.method,) if options.method else METHODS
        state = _trial(state, methods[0], folders)
        try:
            claims.write(home, state, pulled.keeps)
            return _climb(kernel, home, state, folders, keep=pulled.keeps, methods=methods)
        except BaseException:
            _undo(home, state, kernel)
            _remove_empty(f"{changes}/upper", new_changes)
            raise


def umount(
    target: str,
    *,
    store: Store | None = None,
    lazy: bool = False,
    dry_run: bool = False,
    kernel: Kernel | None = None,
) -> Mounted:
    """Remove the environment at `target`, or the remains of one after a crash; return its record.

    Leaves files that others put at the target: then only the claim is removed, and the result is not `whole`. `lazy`:
    also if programs use it; files that they hold open stay readable until closed. `dry_run`: change nothing. Raises
    `MountError` if the store has no environment at `target`, or it can't be unmounted; `StoreError`.
    """
    kernel = kernel or here()
    home = (store or Store()).writable()
    target = os.path.realpath(target)
    with ExitStack() as held:
        state = claims.find(home, target, kernel)
        if state and not dry_run:
            held.enter_context(alone(home, target, state.changes if state.keeps_changes else ""))
            state = claims.find(home, target, kernel)  # another process may have unmounted it
        if state is None:
            raise MountError(
                f"{target}: no environment of the store {home.path} is mounted here; lamella ls lists the mounts of a "
                "store, and --store names another"
            )
        if dry_run:
            return state
        there = claims.is_there(state, kernel)
        try:
            _undo(home, state, kernel, lazy=lazy)
        except OSError as error:
            why = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise MountError(f"cannot unmount {target}: {why}") from error
    return state if there else replace(state, whole=False)


def seen_at(target: str, image_prefix: str) -> str:
    """The path by which programs see the mount at `target`: that, or the image prefix inside another root's folder.

    `/srv/root/opt/env` is `/opt/env` to those who chroot to `/srv/root`, if that is the root of a system.
    """
    root = target.removesuffix(image_prefix)
    inside = root != target and root and all(os.path.isdir(f"{root}/{name}") for name in ("usr", "etc"))
    return image_prefix if inside else target


def mounts(store: Store | None = None) -> tuple[Mounted, ...]:
    """The environments that the store has at a folder, in each mount namespace, sorted by folder.

    Raises `StoreError` if the store can't be read.
    """
    return tuple(sorted(claims.claims((store or Store()).writable()), key=lambda mounted: mounted.target))


@contextmanager
def alone(home: Store, target: str, changes: str = "") -> Iterator[None]:
    """One process at a time changes a target, or uses a folder of changes."""
    home.prepare()
    with ExitStack() as held:
        # Always in one order, so that no two processes wait for each other.
        for name in sorted({claims.lock_name(path) for path in (target, changes) if path}):
            path = f"{home.path}/locks/{name}"
            with home.explained():
                lock = locks.acquire(path, f"mount at {target}", target)
            held.callback(locks.release, lock, path)
        yield


def _finish(home: Store, state: Mounted, wanted: Mounted, method: Method | None, kernel: Kernel) -> Mounted | None:
    """Return `state`, the mount at the target, if it is the wanted one; remove the remains of a crash or a restart."""
    if not (state.whole and claims.is_there(state, kernel)):
        _undo(home, state, kernel)
        return None
    same = state.reference.rpartition("@")[2] == wanted.reference.rpartition("@")[2]
    # A container that is started again mounts again. Changes belong to the process that began to make them.
    if (
        same
        and state.prefix == wanted.prefix
        and not state.replacing
        and method in (None, state.method)
        and not state.changes + wanted.changes
    ):
        return state
    raise MountError(
        f"{state.target}: already holds {state.reference}{', with other options' if same else ''}; "
        f"unmount it first: lamella umount {state.target}"
    )


def _check_empty(target: str, created: str) -> None:
    try:
        if not created and os.listdir(target):
            raise MountError(f"{target}: not empty, the mount would hide its content; use an empty folder")
    except OSError as error:
        raise MountError(f"{target}: {error.strerror}; use another folder") from error


def _check_changes(known: Iterable[Mounted], state: Mounted, kernel: Kernel) -> None:
    if _overlap(state.changes, state.target):
        raise MountError(
            f"--changes {state.changes}: the mount at {state.target} would hide it; use another folder", code="invalid"
        )
    for other in known:
        if other.key == state.key:
            continue  # `_finish` removed it
        used = other.changes and _overlap(state.changes, other.changes)
        if used and (claims.is_there(other, kernel) or claims.is_alive_elsewhere(other)):
            raise MountError(
                f"--changes {state.changes}: already holds the changes of {other.target}; use another folder, or unmount it: "
                f"lamella umount {other.target}"
            )


def _overlap(one: str, other: str) -> bool:
    return os.path.commonpath((one, other)) in (one, other)


def _climb(
    kernel: Kernel,
    home: Store,
    state: Mounted,
    folders: Sequence[str],
    *,
    keep: Sequence[Digest],
    methods: Sequence[Method],
) -> Mounted:
    """Take the first of `methods` that works; the claim says before each try what a crash would leave."""
    claimed = trial = state

    def claim(method: Method, rungs: tuple[Rung, ...]) -> str:
        nonlocal claimed, trial
        if method in TREES and state.keeps_changes:
            return "only a mount can keep changes, and only root can mount"
        trial = _trial(replace(state, rungs=rungs), method, folders)
        if trial != claimed:
            claims.write(home, trial, keep)
        claimed = replace(trial, rungs=(*rungs, Rung(method)), whole=True)
        return ""

    upper = _make_folders(state)
    ladder.assemble(kernel, folders, state.target, methods, upper=upper, source=state.source, before=claim)
    if claimed != trial:
        claims.write(home, claimed, keep)
    return claimed


def _trial(state: Mounted, rung: Method, folders: Sequence[str]) -> Mounted:
    """The claim before `rung` is tried. An overlay is there as a whole or not at all, so its claim does not change later."""
    if rung in TREES:
        return replace(state, method=rung, identity=identity(state.target), whole=False)
    if ladder.is_bound(folders, _upper_of(state)):
        return replace(state, method=rung, identity=identity(folders[0]), whole=False)
    return replace(state, method=rung, identity="", whole=True, rungs=(*state.rungs, Rung(rung)))


def _upper_of(state: Mounted) -> Upper | None:
    return Upper(f"{state.changes}/upper", f"{state.changes}/work") if state.changes else None


def _make_folders(state: Mounted) -> Upper | None:
    upper = _upper_of(state)
    wanted = [state.target] if state.created else []
    try:
        for folder in (*wanted, *((upper.upper, upper.work) if upper else ())):
            _make_with_parents(folder)
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EROFS)
        advice = "mount at a folder that this user can write" if denied else "use another folder"
        raise MountError(f"cannot create {error.filename}: {error.strerror}; {advice}") from error
    return upper


def _make_with_parents(folder: str) -> None:
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        # What root mounts is for everybody, whatever root's umask; what a user makes is as that user has it.
        if os.geteuid() == 0:
            make_folder(each)
        else:
            os.makedirs(each, exist_ok=True)


def _undo(home: Store, state: Mounted, kernel: Kernel, *, lazy: bool = False) -> None:
    """In the reverse order of `mount`; each step may have been done before, or never."""
    # As written last: the rung that was being tried may differ from the first one.
    state = claims.current(home, state) or state
    if state.method in TREES:
        if state.identity and not claims.is_there(state, kernel):
            claims.forget(home, state)  # a foreign folder of the same name
            return
        if state.identity:
            ladder.empty(state.target)
    else:
        _unmount(state, kernel, lazy=lazy)
    if claims.is_alive_elsewhere(state):
        if state.namespace == claims.namespace_here():
            raise MountError(f"{state.target}: the mount was moved elsewhere; unmount it there first, with umount(8)")
        return
    if state.changes and state.namespace == claims.namespace_here():
        # The kernel's own folder, of mode 0, is of no use to the next mount.
        shutil.rmtree(f"{state.changes}/work", ignore_errors=True)
    _remove_empty(state.target, state.created)
    claims.forget(home, state)


def _topmost_missing(path: str) -> str:
    missing = ""
    while not os.path.lexists(path):
        missing, path = path, os.path.dirname(path)
    return missing


def _remove_empty(path: str, topmost: str) -> None:
    # Up to the topmost, as long as they are empty.
    with suppress(OSError):
        while topmost and len(path) >= len(topmost):
            os.rmdir(path)
            path = os.path.dirname(path)


def _unmount(state: Mounted, kernel: Kernel, *, lazy: bool) -> None:
    # After a restart of the machine, or a crash before the mount, there is nothing of it at the target.
    try:
        while claims.is_there(state, kernel):
            if not state.identity and kernel.sources(state.target)[-1] != state.source:
                raise MountError(f"{state.target}: another mount covers the environment; unmount that first")
            kernel.umount(state.target, MNT_DETACH if lazy else 0)
    except OSError as error:
        if error.errno == errno.EBUSY:
            why = "in use; stop the programs that use it, or use --lazy"
        else:
            why = f"cannot unmount: {error.strerror}"
        raise MountError(f"{state.target}: {why}") from error
