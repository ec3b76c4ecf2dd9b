"""Shared libraries of this system to ship, and what the environment's ELF files need from a node."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import Needs
from lamella.builder.files.elf import Elf
from lamella.builder.prefix.places import in_environment
from lamella.builder.prefix.walk import FoundFile
from lamella.builder.scanning import ld_so, run_paths
from lamella.builder.scanning.disk import Disk
from lamella.builder.scanning.library_findings import elsewhere, missing, unreachable
from lamella.builder.scanning.run_paths import Reach

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

    from lamella.builder.environment import RunPath
    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.places import Place
    from lamella.layers.published.findings import Finding

FOLDER = "lib/system"
UNNEEDED = "a system's library that no file here needs"


class Libraries(NamedTuple):
    """System libraries to ship, and needs of the environment."""

    entries: list[FoundFile]
    contents: dict[str, FileContent]
    """Contents of the entries, by source."""
    findings: list[Finding]
    unreachable: list[Finding]
    """About files that would not find `entries`, if these ship."""
    needs: Needs
    run_paths: dict[str, RunPath]
    """Run paths to set, by path: those that name folders of this machine."""


@dataclass(frozen=True, slots=True)
class Shipped:
    """The files that ship, and what decides how their libraries are found."""

    prefix: str
    entries: Mapping[str, FoundFile]
    """Files by path."""
    places: Sequence[Place]
    owners: Mapping[str, str]
    """Path to the package that has it; without the interpreter's own package and files that no package owns."""
    requires: Mapping[str, Collection[str]]
    """Name of a package to the names that it requires, whatever their conditions."""
    conda: Container[str] = frozenset()
    """Paths of conda packages, which have run paths for any prefix."""
    interpreter: Container[str] = frozenset()
    """Paths of the interpreter's package."""
    without: Collection[str] = ()
    """Resolved paths of files that the user leaves out, which are never used."""
    disk: Disk = field(default_factory=Disk)
    """Files outside."""

    def paths(self, source: str) -> Iterator[str]:
        """Paths in the environment of the file at `source`."""
        return (path for path in in_environment(source, self.places) if path in self.entries)

    def inside(self, path: str) -> bool:
        """Whether `path` is the source of a file of the environment."""
        return any(True for _ in self.paths(path))

    def installed(self, source: str) -> bool:
        """Whether `source` is a file of the environment, and not the interpreter's."""
        path = source.removeprefix(f"{self.prefix}/")
        return path in self.entries and path not in self.interpreter and self.owners.get(path) != "python"

    def by_vendor(self, holder: str) -> bool:
        """Whether `holder` is in one of NVIDIA's own packages, from which others load libraries without requiring them."""
        return self.owners.get(holder.removeprefix(f"{self.prefix}/"), "").startswith("nvidia-")

    def relies(self, source: str, holder: str) -> bool:
        """Whether the package of `source` requires that of `holder`, directly or through others."""
        start, end = (self.owners.get(each.removeprefix(f"{self.prefix}/"), "") for each in (source, holder))
        seen, pending = {start}, [start] if start and end else []
        while pending:
            new = set(self.requires.get(pending.pop(), ())) - seen
            seen |= new
            pending += new
        return bool(end) and end in seen


def is_system_library(entry: FoundFile) -> bool:
    """Whether a file that no package owns is a library of a system in `FOLDER`, or a link to one.

    An export has them, and a prefix with an interpreter for another platform.
    """
    at = entry.path
    if entry.target is not None:
        at = os.path.normpath(os.path.join(os.path.dirname(entry.path), entry.target))
    return os.path.dirname(at) == FOLDER and ".so" in at and os.path.basename(at) == os.path.basename(entry.path)


def libraries(
    shipped: Shipped,
    contents: Mapping[str, FileContent],
    read: Callable[[Mapping[str, os.stat_result]], Mapping[str, FileContent]],
) -> Libraries:
    """Find the libraries that the ELF files among `shipped` need, and place them in `FOLDER`.

    `read` returns the contents of more files.
    """
    prefix, entries = shipped.prefix, shipped.entries
    # By path, not by source: the loader expands $ORIGIN to the folder of the path that it opened.
    files = {
        f"{prefix}/{path}": Elf.load(content.elf)
        for path, entry in entries.items()
        if entry.target is None and (content := contents[entry.source]).elf
    }
    machine = Counter(elf.machine for elf in files.values()).most_common(1)
    found: dict[str, FileContent] = {}

    def more(sources: Iterable[str]) -> dict[str, Elf]:
        contents = read({source: shipped.disk.stat(source) for source in sources})
        found.update(contents)
        return {source: Elf.load(content.elf) for source, content in contents.items() if content.elf}

    # The environment's lib folder first, then the base interpreter's, which has conda's OpenSSL and zlib.
    folders = dict.fromkeys([f"{prefix}/lib", *(f"{place.source}/lib" for place in shipped.places if not place.path)])
    needed = ld_so.needed(
        files,
        shipped,
        tuple(folders),
        machine[0][0] if machine else "",
        more,
        without=shipped.without,
        system_folder=f"{prefix}/{FOLDER}",
    )
    system = [
        FoundFile(f"{FOLDER}/{soname}", source, shipped.disk.stat(source))
        for soname, source in sorted(needed.libraries.items())
    ]
    loaded = {source: Elf.load(content.elf) for source, content in found.items() if content.elf}
    rewritten = run_paths.run_paths(
        {
            source.removeprefix(f"{prefix}/"): elf
            for source, elf in files.items()
            if not _is_rewritten(source.removeprefix(f"{prefix}/"), shipped)
        }
        | {entry.path: loaded[entry.source] for entry in system if entry.source in loaded},
        shipped.places,
        entries,
        FOLDER,
    )
    reach = Reach(
        prefix,
        {source.removeprefix(f"{prefix}/"): elf for source, elf in files.items()},
        rewritten,
        {entry.path: entry for entry in system},
        entries,
    )
    everything = [*files.values(), *loaded.values()]
    glibc = max((elf.glibc for elf in everything), default=())
    needs = Needs(
        glibc=".".join(map(str, glibc)),
        level=max((elf.level for elf in everything), default=1),
        drivers=tuple(sorted(needed.driver)),
    )
    left_out = {os.path.basename(source) for source in shipped.without}
    findings = [
        *missing(needed, shipped.owners, prefix, left_out),
        *elsewhere(needed, shipped.owners, prefix),
    ]
    unreached = list(unreachable(reach, shipped.owners, shipped.interpreter))
    return Libraries([*system, *reach.links], found, findings, unreached, needs, rewritten)


def _is_rewritten(path: str, shipped: Shipped) -> bool:
    """Whether another rule takes the run path: conda's placeholder, or the interpreter's place."""
    return path in shipped.conda or path in shipped.interpreter
