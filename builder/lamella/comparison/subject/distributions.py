"""Installed Python distributions of an environment, from their `.dist-info` folders."""

from __future__ import annotations

import csv
import glob
import os
import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Distribution:
    """One distribution, as its metadata on disk says."""

    name: str
    """As in METADATA."""
    version: str
    info: str
    """Absolute path of its `.dist-info` folder."""

    @property
    def site(self) -> str:
        """The folder that the paths of its RECORD are relative to."""
        return os.path.dirname(self.info)

    @property
    def normalised(self) -> str:
        """Name by PEP 503."""
        return re.sub(r"[-_.]+", "-", self.name).lower()


def distributions(prefix: str) -> tuple[Distribution, ...]:
    """Return the distributions below `prefix` that have a RECORD, by name."""
    found = []
    # conda's Python has a second name of its library, `lib/python3.1`.
    libraries = {os.path.realpath(path): path for path in glob.glob(f"{glob.escape(prefix)}/lib/python3*")[::-1]}
    infos = [
        each for path in libraries.values() for each in glob.glob(f"{glob.escape(path)}/site-packages/*.dist-info")
    ]
    for info in infos:
        metadata = os.path.join(info, "METADATA")
        if os.path.isfile(metadata) and os.path.isfile(os.path.join(info, "RECORD")):
            with open(metadata, encoding="utf-8", errors="replace") as file:
                text = file.read()
            found.append(Distribution(_field(text, "Name"), _field(text, "Version"), info))
    return tuple(sorted(found, key=lambda each: each.normalised))


def record(distribution: Distribution) -> list[list[str]]:
    """Return the rows of its RECORD: path, hash, size."""
    with open(os.path.join(distribution.info, "RECORD"), encoding="utf-8", newline="") as file:
        return [[*row, "", ""][:3] for row in csv.reader(file) if row]


def path_of(distribution: Distribution, row: list[str]) -> str:
    """Return the absolute path of a row of its RECORD."""
    return os.path.normpath(os.path.join(distribution.site, row[0]))


def size_of(distribution: Distribution) -> int:
    """Return the bytes of its files."""
    total = 0
    for row in record(distribution):
        try:
            total += os.lstat(path_of(distribution, row)).st_size
        except OSError:
            continue
    return total


def top_modules(distribution: Distribution) -> tuple[str, ...]:
    """Return the names that it can be imported by, shortest first."""
    found = set()
    for path, _, _ in record(distribution):
        first, slash, rest = path.partition("/")
        if slash and rest == "__init__.py" and first.isidentifier():
            found.add(first)
        elif not slash and path.endswith(".py") and path[:-3].isidentifier():
            found.add(path[:-3])
    return tuple(sorted(found, key=lambda each: (each.startswith("_"), len(each), each)))


def _field(metadata: str, name: str) -> str:
    found = re.search(rf"^{name}:\s*(.+?)\s*$", metadata, re.MULTILINE | re.IGNORECASE)
    return found[1] if found else ""
