"""Another environment at the folder of a mount: programs that start see it, those that run keep the former one.

The new mount is put beneath the old one, which is then detached: the path names one of the two at any moment. The claim
is marked before and after, so that the next swap, mount or umount after a crash knows that either can be there.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.layers.errors import MountError
from lamella.layers.mounting import claims, former, lowerdirs, overlay
from lamella.layers.mounting.kernel import MNT_DETACH
from lamella.layers.mounting.ladder import MOUNTS, Rung
from lamella.layers.mounting.mount import alone

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.oci.documents import Digest
    from lamella.layers.pulling.pull import Pulled
    from lamella.layers.store.store import Store


def swap(pulled: Pulled, target: str, *, store: Store, kernel: Kernel) -> tuple[Mounted, bool]:
    """Show the `pulled` environment, whose layers are leased, at `target`, in place of another one of the store.

    Idempotent. Return the mount, and whether no moment was without an environment: Linux before 6.5 needs one. Raises
    `MountError` if the target holds no mount of the store, or one with changes; then it stays as it is.
    """
    home = store.writable()
    target = os.path.realpath(target)
    with alone(home, target):
        state = claims.find(home, target, kernel)
        check_replaceable(state, target, kernel)
        assert state
        if state.reference == pulled.reference and not state.replacing:
            return state, True
        _settle(state, kernel)
        folders = lowerdirs.for_replacement(store, pulled.environment, state.prefix)
        before, keeps = state, claims.kept(home, state)
        former.keep(home, state, keeps)
        rungs = (Rung("overlay"),)
        state = replace(state, reference=pulled.reference, method="overlay", rungs=rungs, identity="", replacing=True)
        claims.write(home, state, pulled.keeps)
        try:
            return _put(kernel, home, state, folders, pulled.keeps)
        except MountError:
            # The former environment stays in use, and its claim with it; `replacing` if that is not certain.
            if claims.is_there(before, kernel):
                claims.write(home, before, keeps)
            raise


def check_replaceable(state: Mounted | None, target: str, kernel: Kernel) -> None:
    """Raise `MountError` unless `state` is a read-only mount, and at `target` now."""
    if state is None or not claims.is_there(state, kernel):
        raise MountError(f"{target}: the environment was unmounted; mount it again")
    if state.method not in MOUNTS:
        raise MountError(
            f"{target}: a tree of {state.method} can't follow a tag, only a mount can, as root; use lamella run --follow, "
            "which needs no privilege"
        )
    if state.changes:
        raise MountError(f"{target}: mounted with changes, which belong to one version; mount it without --writable")


def _settle(state: Mounted, kernel: Kernel) -> None:
    """Leave one mount: a crash between the two steps left the new one beneath the old one."""
    while kernel.sources(state.target).count(state.source) > 1:
        kernel.umount(state.target, MNT_DETACH)


def _put(
    kernel: Kernel, home: Store, state: Mounted, folders: Sequence[str], keeps: Sequence[Digest]
) -> tuple[Mounted, bool]:
    try:
        atomic = overlay.replace(kernel, folders, state.target, state.source)
    except OSError as error:
        raise MountError(f"{state.target}: cannot replace the environment: {error.strerror or error}") from error
    done = replace(state, replacing=False)
    claims.write(home, done, keeps)
    former.release_unused(home)
    return done, atomic
