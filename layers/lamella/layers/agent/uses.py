"""Which environments processes of other mount namespaces use: pods see a mount of the node by a bind mount of their own.

A mount is recognised by its device and the folder of it that is seen, which every namespace shows alike; the source of
an overlay and its path differ or can be forged. Source: proc_pid_mountinfo(5), mount_namespaces(7).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.mounting.kernel import unescaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class SeenMount:
    """One line of mountinfo."""

    number: str
    parent: str
    device: str
    """MAJOR:MINOR of the file system."""
    root: str
    """The folder of the file system that is seen."""
    point: str
    groups: frozenset[str]
    """Peer groups that it is in, or receives mounts and unmounts from."""


def parse(content: bytes) -> list[SeenMount]:
    """Return the mounts of one mountinfo, in its order."""
    found = []
    for line in content.splitlines():
        fields = line.split(b" ")
        if len(fields) < 7 or b"-" not in fields[6:]:
            continue
        marks = fields[6 : fields.index(b"-", 6)]
        groups = frozenset(
            mark.partition(b":")[2].decode() for mark in marks if mark.startswith((b"shared:", b"master:"))
        )
        number, parent, device = (field.decode() for field in fields[:3])
        found.append(SeenMount(number, parent, device, unescaped(fields[3]), unescaped(fields[4]), groups))
    return found


def is_used(target: str, mine: Sequence[SeenMount], others: Iterable[Sequence[SeenMount]]) -> bool:
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
            if each.device != device or not _is_below(each.root, root):
                continue
            if mounts is mine and each.point == target:
                continue
            parent = parents.get(each.parent)
            follows = parent is not None and bool(parent.groups & groups)
            if not (follows and os.path.basename(each.point) == name):
                return True
    return False


def _place(target: str, mine: Sequence[SeenMount]) -> tuple[str, str, frozenset[str]] | None:
    """Device and folder of `target`, and the peer groups of the mount that it is mounted on."""
    above = [each for each in mine if _is_below(target, each.point)]
    if not above:
        return None
    # Of several at one point the last covers the others.
    deepest = max(enumerate(above), key=lambda pair: (len(pair[1].point), pair[0]))[1]
    if deepest.point == target:
        parent = next((each for each in mine if each.number == deepest.parent), None)
        return deepest.device, deepest.root, parent.groups if parent else frozenset()
    inside = os.path.relpath(target, deepest.point)
    return deepest.device, os.path.join(deepest.root, inside), frozenset()


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def is_shared(folder: str, mine: Sequence[SeenMount]) -> bool:
    """Whether mounts made in `folder` reach other namespaces."""
    above = [each for each in mine if _is_below(folder, each.point)]
    return bool(above) and bool(max(enumerate(above), key=lambda pair: (len(pair[1].point), pair[0]))[1].groups)


def mounts_here() -> list[SeenMount]:
    """Return the mounts that this process sees."""
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(file.read())


def mounts_elsewhere() -> Iterator[list[SeenMount]]:
    """Yield the mounts of every other mount namespace that has a process, each namespace once."""
    known = {_namespace("self")}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        # A process can end at any time.
        with suppress(OSError):
            namespace = _namespace(name)
            if namespace in known:
                continue
            with open(f"/proc/{name}/mountinfo", "rb") as file:
                content = file.read()
            known.add(namespace)
            yield parse(content)


def is_of_first_process() -> bool:
    """Whether this process sees the mounts of process 1, as one of the machine itself does."""
    with suppress(OSError):
        return _namespace("self") == _namespace("1")
    return False


def _namespace(process: str) -> str:
    return os.readlink(f"/proc/{process}/ns/mnt")
