"""Leave out packages that the user excludes: exactly their files, and their findings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.files.read import FileContent
from lamella.builder.installed.distributions import normalised
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.walk import FoundFile
    from lamella.builder.scanning.disk import Disk
    from lamella.builder.scanning.ownership import Ownership

SYSTEM_LIBRARIES = "system-libraries"
UNREAD = FileContent("", "", "")
"""Content of a file that need not be read."""


class Without(NamedTuple):
    """An environment's files without the excluded packages."""

    owned: Ownership
    python: Sequence[FoundFile]
    dropped: list[Distribution]
    paths: frozenset[str]
    sources: frozenset[str]
    """Resolved paths of the excluded files."""


def unread(found: Iterable[Distribution], entries: Mapping[str, FoundFile], ignore: Collection[str]) -> set[str]:
    """Paths of `entries` that only excluded packages record; such a file may be unreadable."""
    dropped: set[str] = set()
    kept: set[str] = set()
    for each in found if ignore else ():
        (dropped if normalised(each.name) in ignore else kept).update(each.files or ())
    return (dropped - kept) & entries.keys()


def without(owned: Ownership, python: Sequence[FoundFile], ignore: Collection[str], disk: Disk) -> Without:
    """Remove the packages in `ignore` from `owned` and from the interpreter's own files `python`.

    A name that matches no package is a finding. `unmet` reports the packages that need them.
    """
    kept = [(each, files) for each, files in owned.owned if normalised(each.name) not in ignore]
    dropped = [(each, files) for each, files in owned.owned if normalised(each.name) in ignore]
    gone = [(each.name, files) for each, files in dropped]
    names = {normalised(each.name) for each, _ in dropped}
    findings = [finding for finding in owned.findings if normalised(finding.subject) not in ignore]
    unowned = owned.unowned
    if "unowned" in ignore and unowned:
        gone.append(("unowned", unowned))
        unowned = []
    if "python" in ignore and python:
        gone.append(("python", list(python)))
        python = ()
        message = "python: left out on request; nodes need an interpreter of their own for this environment"
        findings.append(Finding("note", "ignore", "python", message))
    names |= {name for name, _ in gone} | {SYSTEM_LIBRARIES}
    findings += [
        Finding("warning", "ignore", name, f"--ignore {name}: no such package in the environment; correct the name")
        for name in sorted(set(ignore) - names)
    ]
    left_out = [LeftOut(entry.path, f"part of {name}, left out on request") for name, files in gone for entry in files]
    sources = frozenset(_real(entry, disk) for _, files in gone for entry in files)
    result = owned._replace(owned=kept, unowned=unowned, left_out=[*owned.left_out, *left_out], findings=findings)
    return Without(result, python, [each for each, _ in dropped], frozenset(item.path for item in left_out), sources)


def _real(entry: FoundFile, disk: Disk) -> str:
    """Resolved path of a file. A file that is not a link is where its folder is, and there are few folders."""
    if entry.target is not None:
        return disk.real(entry.source)
    folder, name = os.path.split(entry.source)
    return os.path.join(disk.real(folder), name)
