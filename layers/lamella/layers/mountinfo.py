"""Mounts as the kernel lists them, by process and by namespace. Sources: proc_pid_mountinfo(5), mount_namespaces(7)."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class ListedMount:
    """One line."""

    number: str
    parent: str
    device: str
    """MAJOR:MINOR of the file system."""
    root: str
    """The folder of the file system that is seen."""
    point: str
    groups: frozenset[str]
    """Peer groups that it is in, or receives mounts and unmounts from."""
    kind: str
    """Type of the file system, such as overlay or fuse.sshfs."""
    source: str


def parse(content: bytes) -> list[ListedMount]:
    """Return the mounts of one mountinfo, in its order; lines of another shape are passed over."""
    found = []
    for line in content.splitlines():
        fields = line.split(b" ")
        if len(fields) < 7 or b"-" not in fields[6:]:
            continue
        end = fields.index(b"-", 6)
        groups = frozenset(
            mark.partition(b":")[2].decode() for mark in fields[6:end] if mark.startswith((b"shared:", b"master:"))
        )
        number, parent, device = (field.decode() for field in fields[:3])
        root, point = _path(fields[3]), _path(fields[4])
        kind, source = ([_path(field) for field in fields[end + 1 : end + 3]] + ["", ""])[:2]
        found.append(ListedMount(number, parent, device, root, point, groups, kind, source))
    return found


def mounts(process: str = "self") -> list[ListedMount]:
    """Return the mounts that a process sees. Raises `OSError`, as for one that has ended."""
    with open(f"/proc/{process}/mountinfo", "rb") as file:
        return parse(file.read())


def mounts_by_namespace(*, own: bool) -> Iterator[list[ListedMount]]:
    """Yield the mounts of each mount namespace that a visible process is in. `own`: whether this process's is one of them."""
    seen = set() if own else {mount_namespace("self")}
    for process in os.listdir("/proc"):
        if not process.isdecimal():
            continue
        # A process can end at any time.
        with suppress(OSError):
            namespace = mount_namespace(process)
            if namespace not in seen:
                found = mounts(process)
                seen.add(namespace)
                yield found


def mount_namespace(process: str) -> str:
    """Return the name of a process's mount namespace. Raises `OSError`, as for one that has ended."""
    return os.readlink(f"/proc/{process}/ns/mnt")


def mount_of(path: str, listed: Iterable[ListedMount]) -> ListedMount | None:
    """Return the mount that `path` is on; of several at one point the last, which covers the others."""
    above = [each for each in listed if is_below(path, each.point)]
    return max(enumerate(above), key=lambda pair: (len(pair[1].point), pair[0]))[1] if above else None


def is_below(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or in it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def _path(field: bytes) -> str:
    # Blank, tab, newline and backslash are written as three octal digits.
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), field) if b"\\" in field else field)
