"""An environment at a folder that follows a tag: each push of it is seen there by every program that starts later."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import LayersError, MountError
from lamella.layers.following.moves import FollowEvent, Moves
from lamella.layers.following.tag import TaggedDigest
from lamella.layers.mounting import claims, former
from lamella.layers.mounting.kernel import here
from lamella.layers.mounting.mount import MountOptions, mount, resolved, umount
from lamella.layers.mounting.swap import check_replaceable, swap
from lamella.layers.oci.reference import Reference
from lamella.layers.settings.trust import Trust
from lamella.layers.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.oci.documents import Digest

_LOOK = 10.0
"""Seconds between two looks at whether former environments still have users."""


@dataclass(frozen=True, slots=True)
class FollowOptions:
    """How to follow a tag."""

    interval: float = 0.0
    """Seconds between two requests; 0 for 0.2 on this machine and in folders, and 1 elsewhere."""
    restart: bool = False
    """Of a command: end it and start it again, instead of leaving it to use the new environment."""
    signal: int = 0
    """Of a command: signal to send to it after a move; 0 for none."""
    grace: float = 10.0
    """Of a restart: seconds between SIGTERM and SIGKILL."""


def _ignore(_: FollowEvent) -> None:
    """Discard the event."""


def follow(
    reference: str,
    target: str,
    options: FollowOptions = FollowOptions(),
    *,
    store: Store | None = None,
    trust: Trust = Trust(),
    notify: Callable[[FollowEvent], object] = _ignore,
    stop: threading.Event | None = None,
) -> None:
    """Mount `reference`, a tag, at `target`, and replace it there whenever the tag moves, until `stop` is set.

    The mount stays afterwards, until `umount`; a later `follow` of the same tag takes it over. A digest that can't be
    pulled or mounted is an event, and the former one stays. Raises what `mount` raises before the first is mounted,
    and `MountError` if the mount is not one that can be replaced, or was unmounted meanwhile.
    """
    stop = stop or threading.Event()
    store = store or Store()
    target = resolved(target)
    with closing(TaggedDigest(reference, trust, options.interval)) as tag:
        moves = Moves(tag, store, trust, notify)
        moves.used = _first(tag, target, store, trust, notify)
        looked = time.monotonic()
        while not stop.wait(tag.pause):
            if digest := moves.next():
                _replace(moves, digest, target, store, notify)
            if time.monotonic() - looked > _LOOK:
                looked = time.monotonic()
                former.release_unused(store.writable())


def _first(
    tag: TaggedDigest, target: str, store: Store, trust: Trust, notify: Callable[[FollowEvent], object]
) -> Digest | None:
    """Mount it, or take over the mount of an earlier `follow`; return the digest in use, or None to replace it at once."""
    kernel = here()
    state = claims.find(store.writable(), target, kernel)
    if state and claims.is_there(state, kernel) and _is_of(state, tag.reference):
        check_replaceable(state, target, kernel)
        notify(FollowEvent("following", f"{state.reference} is at {target}; follows {tag.reference}", state.reference))
        return None if state.replacing else Reference.parse(state.reference).digest
    mounted = mount(tag.at(tag.ask()), target, options=MountOptions(), store=store, trust=trust)
    try:
        check_replaceable(mounted, target, kernel)
    except MountError:
        umount(target, store=store, kernel=kernel)
        raise
    notify(FollowEvent("following", f"{mounted.reference} is at {target}; follows {tag.reference}", mounted.reference))
    return Reference.parse(mounted.reference).digest


def _is_of(state: Mounted, reference: Reference) -> bool:
    """Whether the mount is of the same repository or folder."""
    try:
        mounted = Reference.parse(state.reference)
    except LayersError:
        return False
    return mounted.place == reference.place


def _replace(moves: Moves, digest: Digest, target: str, store: Store, notify: Callable[[FollowEvent], object]) -> None:
    began = time.monotonic()
    with ExitStack() as stack:
        pulled = moves.pulled(digest, stack)
        if pulled is None:
            return
        kernel = here()
        try:
            mounted, atomic = swap(pulled, target, store=store, kernel=kernel)
        except (LayersError, OSError) as error:
            # Without a mount there is nothing to follow for.
            check_replaceable(claims.find(store.writable(), target, kernel), target, kernel)
            moves.refuse(digest, str(error))
            return
    moves.used = digest
    took = round(time.monotonic() - began, 3)
    notify(FollowEvent("replaced", f"{mounted.reference} is at {target}", mounted.reference, pulled.moved, took))
    if not atomic:
        notify(FollowEvent("note", f"{target}: was empty for a moment, since this kernel is older than Linux 6.5"))
