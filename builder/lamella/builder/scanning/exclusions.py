"""Packages that their user wants left out: those exactly, with all that the scan would say of them."""

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
    from lamella.builder.scanning.ownership import Ownership

SYSTEM_LIBRARIES = "system-libraries"
UNREAD = FileContent("", "", "")
"""Of a file that nobody needs to read."""


class Without(NamedTuple):
    """What there is without them."""

    owned: Ownership
    python: Sequence[FoundFile]
    dropped: list[Distribution]
    paths: frozenset[str]
    sources: frozenset[str]
    """Of their files, resolved."""


def unread(found: Iterable[Distribution], entries: Mapping[str, FoundFile], ignore: Collection[str]) -> set[str]:
    """The paths of `entries` that packages of those names alone record: one of them may be unreadable."""
    dropped: set[str] = set()
    kept: set[str] = set()
    for each in found if ignore else ():
        (dropped if normalised(each.name) in ignore else kept).update(each.files or ())
    return (dropped - kept) & entries.keys()


def without(owned: Ownership, python: Sequence[FoundFile], ignore: Collection[str]) -> Without:
    """`owned` and the interpreter's own files `python` without the packages of those names. A name that is nobody's is a
    finding; who needs them is what `unmet` says then.
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
        message = (
            "python is left out as was asked: nodes have no interpreter for this environment but one that they bring"
        )
        findings.append(Finding("note", "ignore", "python", message))
    names |= {name for name, _ in gone} | {SYSTEM_LIBRARIES}
    findings += [
        Finding("warning", "ignore", name, f"{name} is to be left out, and is not in the environment: correct the name")
        for name in sorted(set(ignore) - names)
    ]
    left_out = [LeftOut(entry.path, f"of {name}, as was asked") for name, files in gone for entry in files]
    sources = frozenset(os.path.realpath(entry.source) for _, files in gone for entry in files)
    result = owned._replace(owned=kept, unowned=unowned, left_out=[*owned.left_out, *left_out], findings=findings)
    return Without(result, python, [each for each, _ in dropped], frozenset(item.path for item in left_out), sources)
