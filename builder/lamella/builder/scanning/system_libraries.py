"""Shared libraries of this system to ship, and what the environment's ELF files need from a node."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import Needs
from lamella.builder.files.elf import Elf
from lamella.builder.prefix.places import in_environment
from lamella.builder.prefix.walk import FoundFile
from lamella.builder.scanning import ld_so
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.places import Place

FOLDER = "lib/system"


class Libraries(NamedTuple):
    """System libraries to ship, and needs of the environment."""

    entries: list[FoundFile]
    contents: dict[str, FileContent]
    """Contents of the entries, by source."""
    findings: list[Finding]
    needs: Needs


def libraries(
    prefix: str,
    entries: Mapping[str, FoundFile],
    contents: Mapping[str, FileContent],
    places: Sequence[Place],
    read: Callable[[Mapping[str, os.stat_result]], Mapping[str, FileContent]],
    *,
    names: Mapping[str, str] | None = None,
    without: Collection[str] = (),
) -> Libraries:
    """Find the libraries that the ELF files among `entries` (by path) need, and place them in `FOLDER`.

    `read` returns the contents of more files. `names` maps a path to its package; `without` has the
    resolved paths of files that the user leaves out, which are never used.
    """
    # By path, not by source: the loader expands $ORIGIN to the folder of the path that it opened.
    files = {
        f"{prefix}/{path}": Elf.load(content.elf)
        for path, entry in entries.items()
        if entry.target is None and (content := contents[entry.source]).elf
    }
    machine = Counter(elf.machine for elf in files.values()).most_common(1)
    found: dict[str, FileContent] = {}

    def inside(source: str) -> bool:
        return any(path in entries for path in in_environment(source, places))

    def more(sources: Iterable[str]) -> dict[str, Elf]:
        contents = read({source: os.stat(source) for source in sources})
        found.update(contents)
        return {source: Elf.load(content.elf) for source, content in contents.items() if content.elf}

    # The environment's lib folder first, then the base interpreter's, which has conda's OpenSSL and zlib.
    folders = dict.fromkeys([f"{prefix}/lib", *(f"{place.source}/lib" for place in places if not place.path)])
    needed = ld_so.needed(files, inside, tuple(folders), machine[0][0] if machine else "", more, without=without)
    shipped = [
        FoundFile(f"{FOLDER}/{soname}", source, os.stat(source)) for soname, source in sorted(needed.libraries.items())
    ]
    shipped += _links(files, {entry.path: entry for entry in shipped}, prefix, entries)
    everything = [*files.values(), *(Elf.load(content.elf) for content in found.values() if content.elf)]
    glibc = max((elf.glibc for elf in everything), default=())
    needs = Needs(
        glibc=".".join(map(str, glibc)),
        level=max((elf.level for elf in everything), default=1),
        drivers=tuple(sorted(needed.driver)),
    )
    findings = list(_findings(needed, prefix, names or {}, {os.path.basename(source) for source in without}))
    return Libraries(shipped, found, findings, needs)


def _links(
    files: Mapping[str, Elf], shipped: Mapping[str, FoundFile], prefix: str, taken: Container[str]
) -> list[FoundFile]:
    """Links to the libraries in `FOLDER`, from the folders in the RUNPATH of files that need them.

    Other files find `FOLDER` through the executable's RPATH, which the loader ignores for a file with a
    RUNPATH (ld.so(8)): most wheels with libraries of their own, such as pyarrow, which needs libstdc++.
    """
    links: dict[str, FoundFile] = {}
    for source, elf in files.items():
        own = [os.path.normpath(ld_so.expand(folder, os.path.dirname(source))) for folder in elf.runpath]
        folder = next((folder for folder in own if f"{folder}/".startswith(f"{prefix}/")), None)
        for soname in elf.needed if folder else ():
            library = shipped.get(f"{FOLDER}/{os.path.basename(soname)}")
            path = f"{folder}/{soname}".removeprefix(f"{prefix}/")
            if library and "/" not in soname and path not in taken:
                target = os.path.relpath(library.path, os.path.dirname(path))
                links[path] = FoundFile(path, library.source, library.seen, target)
    return list(links.values())


def _findings(
    needed: ld_so.Needed, prefix: str, names: Mapping[str, str], without: Container[str]
) -> Iterator[Finding]:
    """One finding for each package and each library that it lacks."""
    for soname, sources in sorted(needed.missing.items()):
        by: dict[str, list[str]] = defaultdict(list)
        for source in sorted(sources):
            path = source.removeprefix(prefix + "/")
            by[names.get(path, soname)].append(path)
        for package, paths in by.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            if soname in without:
                message = f"{soname}: needed by {paths[0]}{more}, but left out on request"
                yield Finding("note", "libraries", package, message)
            else:
                message = f"{soname}: needed by {paths[0]}{more}, but neither in the environment nor on this system"
                yield Finding("warning", "libraries", package, message)
