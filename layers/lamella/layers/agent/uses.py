"""Which environments processes of other mount namespaces use: pods see a mount of the node by a bind mount of their own.

A mount is recognised by its device and the folder of it that is seen, which every namespace shows alike; the source of
an overlay and its path differ or can be forged. Source: mount_namespaces(7).
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers.mountinfo import is_below, mount_namespace, mount_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.layers.mountinfo import ListedMount


def is_used(target: str, mine: Sequence[ListedMount], others: Iterable[Sequence[ListedMount]]) -> bool:
    """Whether a mount other than `target` shows its environment, or a part of it.

    `mine`: the mounts of this process, which sees `target`; `others`: those of every other mount namespace. A copy that
    propagation made at the same name is not a use: unmounting the target unmounts it, or fails if it is busy.
    """
    place = _place(target, mine)
    if place is None:
        return False
    device, root, groups = place
    name = os.path.basename(target)
    for mounts in (mine, *others):
        parents = {each.number: each for each in mounts}
        for each in mounts:
            if each.device != device or not is_below(each.root, root):
                continue
            if mounts is mine and each.point == target:
                continue
            parent = parents.get(each.parent)
            follows = parent is not None and bool(parent.groups & groups)
            if not (follows and os.path.basename(each.point) == name):
                return True
    return False


def _place(target: str, mine: Sequence[ListedMount]) -> tuple[str, str, frozenset[str]] | None:
    """Device and folder of `target`, and the peer groups of the mount that it is mounted on."""
    deepest = mount_of(target, mine)
    if deepest is None:
        return None
    if deepest.point == target:
        parent = next((each for each in mine if each.number == deepest.parent), None)
        return deepest.device, deepest.root, parent.groups if parent else frozenset()
    inside = os.path.relpath(target, deepest.point)
    return deepest.device, os.path.join(deepest.root, inside), frozenset()


def is_shared(folder: str, mine: Sequence[ListedMount]) -> bool:
    """Whether mounts made in `folder` reach other namespaces."""
    found = mount_of(folder, mine)
    return found is not None and bool(found.groups)


def is_of_first_process() -> bool:
    """Whether this process sees the mounts of process 1, as one of the machine itself does."""
    with suppress(OSError):
        return mount_namespace("self") == mount_namespace("1")
    return False
