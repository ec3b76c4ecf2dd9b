"""Run paths of ELF files, as they must be on a node: relative, and with the folder of system libraries in reach.

Source: ld.so(8). A file with a DT_RUNPATH looks in no folder of the program that loads it, and what a program of its own
loads never meets the interpreter's DT_RPATH.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.environment import RunPath
from lamella.builder.prefix.places import in_environment
from lamella.builder.prefix.walk import FoundFile
from lamella.builder.scanning.ld_so import expand

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from lamella.builder.files.elf import Elf
    from lamella.builder.prefix.places import Place

_ORIGIN = ("$ORIGIN", "${ORIGIN}")


def run_paths(
    files: Mapping[str, Elf], places: Sequence[Place], entries: Collection[str], system: str
) -> dict[str, RunPath]:
    """Run paths to set in `files` (by path), those that name folders of this machine.

    A folder of the environment becomes relative; in place of any other stand the folder `system`, in which its libraries
    ship, and the one above it, as in the interpreter's own. A folder that is relative to the working directory goes.
    """
    found = {}
    folders: set[str] = set()
    for path, elf in files.items():
        own = elf.rpath or elf.runpath
        if all(folder.startswith(_ORIGIN) for folder in own):
            continue
        folders = folders or _folders(entries)
        origin = os.path.dirname(path)
        made = dict.fromkeys(new for folder in own for new in _portable(folder, origin, places, folders, system))
        found[path] = RunPath("RPATH" if elf.rpath else "RUNPATH", ":".join(made))
    return found


def _portable(
    folder: str, origin: str, places: Sequence[Place], folders: Collection[str], system: str
) -> Iterator[str]:
    if folder.startswith(_ORIGIN):
        yield folder
    elif folder.startswith("/"):
        inside = next((each for each in in_environment(os.path.normpath(folder), places) if each in folders), None)
        for place in (os.path.dirname(system), system) if inside is None else (inside,):
            to = os.path.relpath(place or ".", origin or ".")
            yield "$ORIGIN" if to == "." else f"$ORIGIN/{to}"


def _folders(entries: Collection[str]) -> set[str]:
    """Every folder of the environment, by path; the prefix itself is empty."""
    found = {""}
    for path in entries:
        folder = path.rpartition("/")[0]
        while folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


@dataclass(frozen=True, slots=True)
class Reach:
    """Which files find the libraries that ship from the system."""

    prefix: str
    files: Mapping[str, Elf]
    """ELF files of the environment, by path."""
    run_paths: Mapping[str, RunPath]
    shipped: Mapping[str, FoundFile]
    """The libraries, by path."""
    taken: Collection[str]
    """Paths of the environment's files."""
    links: list[FoundFile] = field(init=False)
    """Links to the libraries from the folders in the RUNPATH of files that need them.

    Such as most wheels with libraries of their own: pyarrow, which needs libstdc++.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "links", list(self._links()))

    def _needed(self) -> Iterator[tuple[str, Elf, list[tuple[str, FoundFile]]]]:
        """Files that need the libraries, with the sonames by which they do."""
        by_name = {os.path.basename(path): entry for path, entry in self.shipped.items()}
        for path, elf in self.files.items():
            needed = [(soname, library) for soname in elf.needed if (library := by_name.get(soname.rpartition("/")[2]))]
            if needed:
                yield path, elf, needed

    def _own(self, path: str, elf: Elf) -> tuple[str, list[str]]:
        """The kind of a file's run path, and its folders below the prefix, as paths."""
        new = self.run_paths.get(path)
        tag = new.tag if new else "RPATH" if elf.rpath else "RUNPATH" if elf.runpath else ""
        origin = os.path.dirname(f"{self.prefix}/{path}")
        folders = new.folders.split(":") if new else (*elf.rpath, *elf.runpath)
        own = [os.path.normpath(expand(folder, origin)) for folder in folders if folder]
        return tag, [each[len(self.prefix) + 1 :] for each in own if f"{each}/".startswith(f"{self.prefix}/")]

    def _links(self) -> Iterator[FoundFile]:
        made: set[str] = set()
        for path, elf, needed in self._needed():
            tag, own = self._own(path, elf)
            if tag != "RUNPATH" or not own:
                continue
            for soname, library in needed:
                if "/" in soname or os.path.dirname(library.path) in own:
                    continue
                link = f"{own[0]}/{soname}".lstrip("/")
                if link not in self.taken and link not in made:
                    made.add(link)
                    target = os.path.relpath(library.path, os.path.dirname(link) or ".")
                    yield FoundFile(link, library.source, library.seen, target)

    def unreached(self) -> Iterator[tuple[str, Elf, str]]:
        """File, its facts, and the soname of a library that ships and that it does not find."""
        links = {entry.path for entry in self.links}
        for path, elf, needed in self._needed():
            tag, own = self._own(path, elf)
            # The interpreter's DT_RPATH serves what it loads, and not a program of its own.
            by_interpreter = tag != "RUNPATH" and not (elf.program and ".so" not in os.path.basename(path))
            for soname, library in needed:
                near = [f"{folder}/{soname}".lstrip("/") for folder in own]
                if "/" in soname or not (
                    by_interpreter
                    or os.path.dirname(library.path) in own
                    or any(each in links or each in self.taken for each in near)
                ):
                    yield path, elf, soname
