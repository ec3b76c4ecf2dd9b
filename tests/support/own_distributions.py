"""Environments with large distributions, hard-linked from the tests' own environment: no network, and few seconds."""

from __future__ import annotations

import os
import shutil
import sysconfig
from importlib.metadata import distribution
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def link_distributions(prefix: Path, *names: str, leave_out: Sequence[str] = ()) -> Path:
    """Give the virtual environment at `prefix` the distributions `names` and their requirements, without scripts.

    `leave_out`: beginnings of paths that no test needs, below site-packages.
    """
    scheme = sysconfig.get_path("purelib", vars={"base": str(prefix), "platbase": str(prefix)})
    seen: set[str] = set()
    for each in [each for name in names for each in _required(name, seen)]:
        found = distribution(each)
        record = []
        for path in found.files or ():
            if path.parts[0] == ".." or path.suffix == ".pyc" or str(path).startswith(tuple(leave_out)):
                continue
            if path.name == "RECORD":
                place = os.path.join(scheme, path)
                continue
            _link(str(path.locate()), os.path.join(scheme, path))
            record.append(f'"{path}",{f"{path.hash.mode}={path.hash.value}" if path.hash else ""},{path.size or ""}')
        with open(place, "w", encoding="utf-8") as file:
            file.write("\n".join([*record, f"{os.path.relpath(place, scheme)},,\n"]))
    return prefix


def _required(name: str, seen: set[str]) -> list[str]:
    if name in seen:
        return []
    seen.add(name)
    wanted = [Requirement(text) for text in distribution(name).requires or ()]
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [name, *(found for each in needed for found in _required(each.name, seen))]


def _link(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
