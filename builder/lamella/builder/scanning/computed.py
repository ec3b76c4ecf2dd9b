"""Compute what follows from an environment's inventory: assign every file to one package, or leave it out with a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from lamella.builder.cache_folder import cache_folder
from lamella.builder.environment import LeftOut, Package
from lamella.builder.installed.conda import conda_owned
from lamella.builder.installed.conda_virtual import unchecked
from lamella.builder.installed.distributions import normalised
from lamella.builder.installed.requirements import unmet
from lamella.builder.local.working_directory import within_limit
from lamella.builder.prefix.places import Place
from lamella.builder.scanning.exclusions import SYSTEM_LIBRARIES, UNREAD, unread, without
from lamella.builder.scanning.findings import (
    colliding,
    made_for,
    outside,
    secrets,
    uncompiled,
    unloadable,
    unnamable,
    unowned,
    without_secrets,
)
from lamella.builder.scanning.ownership import Ownership, own
from lamella.builder.scanning.packages import files_of, with_run_paths
from lamella.builder.scanning.prefix_findings import cramped, unrewritten
from lamella.builder.scanning.recorded_paths import with_adapted_records
from lamella.builder.scanning.remembered import ScanResult
from lamella.builder.scanning.symlinks import verified, without_dangling
from lamella.builder.scanning.system_libraries import UNNEEDED, Shipped, is_system_library, libraries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lamella.builder.files.read import FileContent
    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.prefix.interpreter import Prefix
    from lamella.builder.prefix.walk import FoundFile
    from lamella.builder.scanning.disk import Disk
    from lamella.builder.scanning.system_libraries import Libraries
    from lamella.builder.scanning.task import ScanTask
    from lamella.builder.wheels.cache import Read
    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Finding

_NAME = re.compile(r"[A-Za-z0-9][\w.\-]*")


@dataclass(frozen=True, slots=True)
class _Assigned:
    """Files of an environment by the package that they ship in."""

    owned: Ownership
    python: Sequence[FoundFile]
    """Files of the interpreter's own package."""
    system: Sequence[FoundFile]
    """Libraries of a system and links to them; they ship as such if something needs them."""
    installed: list[Distribution]
    """Distributions whose requirements must be met."""
    dropped: list[Distribution]
    """Distributions that the user leaves out."""
    sources: frozenset[str]
    """Resolved paths of the files that the user leaves out."""
    left_out: frozenset[LeftOut]
    findings: list[Finding]


def result(task: ScanTask, collected: Inventory) -> ScanResult:
    """Assign the files of `collected` to packages, find their system libraries, and look for faults."""
    prefix, options, searched = task.prefix, task.options, task.searched
    ignore = frozenset(map(normalised, options.ignore))
    collected = _completed(task, collected)
    contents = _contents(collected, ignore, task.read)
    collected = _verified(collected, contents)
    assigned = _assigned(collected, contents, ignore, task.disk)
    system = _system_libraries(task, collected, assigned, contents)
    contents |= system.contents
    held = {entry.path for entry in assigned.system if entry.target is None}
    unneeded = [LeftOut(path, UNNEEDED) for path in held.difference(entry.path for entry in system.entries)]
    ships_system = options.system_libraries and SYSTEM_LIBRARIES not in ignore
    packages = [
        with_run_paths(package, system.run_paths)
        for package in _packages(prefix, assigned, system.entries if ships_system else [], contents)
    ]
    distributions = [each for each, _ in assigned.owned.owned]
    return ScanResult(
        packages=tuple(sorted(packages, key=lambda each: (each.name, each.origin))),
        left_out=tuple(sorted([*assigned.left_out, *unneeded], key=lambda each: (each.path, each.reason))),
        findings=(
            *_findings(prefix, collected, assigned, contents, task.platform),
            *unmet([*distributions, *assigned.installed], prefix, task.hashes, left_out=assigned.dropped),
            *system.findings,
            *(system.unreachable if ships_system else ()),
            *unrewritten(packages, prefix.path, searched, options.image_prefix),
            *unnamable(packages),
            *colliding(packages),
            *cramped(packages, searched, options.image_prefix),
            *unchecked(distributions, system.needs),
        ),
        needs=system.needs,
    )


def _completed(task: ScanTask, collected: Inventory) -> Inventory:
    """Adapt records to the disk, and replace local projects by their wheels if asked. Reads no other file."""
    prefix = task.prefix
    collected = with_adapted_records(collected, prefix.path, task.disk)
    if task.wheels:
        from lamella.builder.wheels.install import with_wheels

        collected = with_wheels(
            collected,
            prefix,
            local=task.local,
            read=task.read,
            progress=task.progress,
            cache_path=cache_folder(task.options.cache),
        )
    within_limit(collected.entries, collected.pip, task.local)
    return collected


def _contents(collected: Inventory, ignore: frozenset[str], read: Read) -> dict[str, FileContent]:
    """Content of each file by source. Files that only ignored packages record are not read."""
    entries = collected.entries
    unneeded = unread([*collected.conda, *collected.pip], entries, ignore)
    contents = {entries[path].source: UNREAD for path in unneeded}
    wanted = {e.source: e.seen for path, e in entries.items() if e.target is None and path not in unneeded}
    return contents | dict(read(wanted))


def _verified(collected: Inventory, contents: Mapping[str, FileContent]) -> Inventory:
    """Leave out the targets of links that only a record vouches for, and that have other bytes."""
    if not collected.expected:
        return collected
    checked = verified(collected.entries, collected.expected, lambda source: contents[source].digest)
    return collected._replace(
        entries={entry.path: entry for entry in checked.entries},
        left_out=[*collected.left_out, *checked.left_out],
        findings=[*collected.findings, *checked.findings],
    )


def _assigned(
    collected: Inventory, contents: Mapping[str, FileContent], ignore: frozenset[str], disk: Disk
) -> _Assigned:
    """Assign each file to one package, or leave it out."""
    entries = collected.entries

    def digest(path: str) -> str:
        entry = entries.get(path)
        return contents[entry.source].digest if entry and entry.target is None else ""

    by_pip, replaced = conda_owned(collected.conda, collected.pip, digest)
    # Metadata inside conda packages: names and requirements count, though conda owns the files.
    records = {each.records for each in by_pip}
    brought = [each for each in collected.pip if each.records not in records]
    python = [entry for path, entry in entries.items() if path in collected.python]
    others = {path: entry for path, entry in entries.items() if path not in collected.python}
    owned = own([*by_pip, *collected.conda], others, contents, _covered(collected.left_out))
    chosen = without(owned, python, ignore, disk)
    system = [entry for entry in chosen.owned.unowned if is_system_library(entry)]
    unowned = (
        [entry for entry in chosen.owned.unowned if not is_system_library(entry)] if system else chosen.owned.unowned
    )
    public = _without_secrets(chosen.owned._replace(unowned=unowned))
    installed = [each for each in brought if chosen.paths.isdisjoint((each.records, f"{each.records}/METADATA"))]
    return _Assigned(
        public,
        chosen.python,
        system,
        installed,
        [*chosen.dropped, *(each for each in brought if each not in installed)],
        chosen.sources,
        frozenset((*collected.left_out, *public.left_out)),
        [
            *(each for each in (*collected.findings, *replaced) if normalised(each.subject) not in ignore),
            *public.findings,
        ],
    )


def _system_libraries(
    task: ScanTask, collected: Inventory, assigned: _Assigned, contents: Mapping[str, FileContent]
) -> Libraries:
    """Find the system libraries that the shipped files need."""
    owned = assigned.owned
    names = {entry.path: each.name for each, files in owned.owned for entry in files}
    files = chain(assigned.python, owned.unowned, *(files for _, files in owned.owned))
    ships = {entry.path: entry for entry in files}
    shipped = Shipped(
        task.prefix.path,
        ships,
        collected.places,
        names,
        {each.name: _required(each) for each, _ in owned.owned},
        conda=frozenset(entry.path for each, files in owned.owned if each.origin == "conda" for entry in files),
        interpreter=frozenset(entry.path for entry in assigned.python),
        without=assigned.sources,
        disk=task.disk,
    )
    return libraries(shipped, contents, task.read)


def _required(distribution: Distribution) -> frozenset[str]:
    """Names that a distribution requires, whatever the condition."""
    names = (_NAME.match(requirement) for requirement in distribution.requires)
    return frozenset(normalised(name[0]) for name in names if name)


def _findings(
    prefix: Prefix, collected: Inventory, assigned: _Assigned, contents: Mapping[str, FileContent], platform: Platform
) -> list[Finding]:
    owned = assigned.owned
    local = [entry for each, files in owned.owned if each.editable or each.origin == "local" for entry in files]
    return [
        *assigned.findings,
        *secrets(assigned.left_out),
        *outside([*local, *owned.unowned], [*collected.places, *(Place(folder, "") for folder in collected.searched)]),
        *unowned(owned.unowned, prefix.site_packages),
        *uncompiled(prefix.python),
        *made_for(prefix),
        *(unloadable(local, contents, platform) if prefix.is_foreign else ()),
    ]


def _packages(
    prefix: Prefix, assigned: _Assigned, system: Sequence[FoundFile], contents: Mapping[str, FileContent]
) -> list[Package]:
    packages = [
        Package(each.origin, each.name, each.version, files_of(files, contents), each.build, each.source, each.records)
        for each, files in assigned.owned.owned
    ]
    if assigned.python:
        packages.append(Package("python", "python", prefix.python.version, files_of(assigned.python, contents)))
    if system:
        packages.append(Package("system", "system-libraries", "", files_of(system, contents)))
    if assigned.owned.unowned:
        packages.append(Package("unowned", "unowned", "", files_of(assigned.owned.unowned, contents)))
    return packages


def _without_secrets(owned: Ownership) -> Ownership:
    """Remove files with credentials. Skip wheels from an index, whose files are public."""
    kept, left_out = without_secrets(owned.unowned)
    packages = []
    for each, files in owned.owned:
        if each.direct or each.editable or each.origin == "local":
            checked, hidden = without_secrets(files)
            left_out += hidden
            packages.append((each, checked))
        else:
            packages.append((each, files))
    if left_out:
        kept, dangling = without_dangling(kept, left_out)
        left_out += dangling
        for index, (each, files) in enumerate(packages):
            checked, dangling = without_dangling(files, left_out)
            left_out += dangling
            packages[index] = each, checked
    return owned._replace(owned=packages, unowned=kept, left_out=[*owned.left_out, *left_out])


def _covered(left_out: Iterable[LeftOut]) -> Callable[[str], bool]:
    """Return a check whether a path or one of its parent folders is left out."""
    omitted = {item.path for item in left_out}

    def covered(path: str) -> bool:
        while path:
            if path in omitted:
                return True
            path = path.rpartition("/")[0]
        return False

    return covered
