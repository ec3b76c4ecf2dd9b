"""Carry a local project's records into a prefix for another platform, where a scan finds its code as in the environment."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.builder.local.pth_pointers import egg_links, pointers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamella.builder.resolving.model import InstalledDistribution, InstalledPackages

_RECORDS = ("METADATA", "PKG-INFO", "entry_points.txt", "top_level.txt", "requires.txt")


def place_pointers(installed: InstalledPackages, site: str, projects: Sequence[str]) -> list[str]:
    """Copy what points to local code into the folder of packages `site`; return the paths of the copies.

    `projects` are the folders to be built as wheels. Idempotent: copies replace earlier ones.
    """
    placed = []
    os.makedirs(site, exist_ok=True)
    folders = {os.path.dirname(each.folder) for each in installed.pypi if each.folder}
    for folder in sorted(folders):
        placed += [_copy(folder, name, site) for name in _names(folder, installed.prefix)]
    for each in installed.pypi:
        if each.local in projects and each.folder and not (each.pure and not each.editable):
            placed.append(_records(each, site))
    return placed


def _names(folder: str, prefix: str) -> Iterator[str]:
    own = {os.path.join(each, "") for each in (prefix, os.path.realpath(prefix))}

    def inside(source: str) -> bool:
        return any(os.path.join(source, "").startswith(each) for each in own)

    for pointer in pointers(folder, "", inside):
        if pointer.roots or pointer.gone:
            yield pointer.file
            yield from (f"{module}.py" for module in pointer.companions)
    yield from (name for name, _ in egg_links(folder))


def _copy(folder: str, name: str, site: str) -> str:
    source, target = os.path.join(folder, name), os.path.join(site, name)
    _remove(target)
    if os.path.islink(source):
        os.symlink(os.path.realpath(source), target)
    elif name.endswith((".pth", ".egg-link")):
        # Relative lines are relative to the folder that they are read in.
        with open(source, encoding="utf-8-sig", errors="surrogateescape") as lines:
            text = [_absolute(line.rstrip("\r\n"), folder) for line in lines]
        Path(target).write_text("".join(f"{line}\n" for line in text), encoding="utf-8", errors="surrogateescape")
    else:
        shutil.copyfile(source, target)
    return target


def _absolute(line: str, folder: str) -> str:
    if not line.strip() or line.startswith(("#", "import ", "import\t")):
        return line
    path = os.path.normpath(os.path.join(folder, line))
    return path if os.path.exists(path) else line


def _records(distribution: InstalledDistribution, site: str) -> str:
    target = os.path.join(site, os.path.basename(distribution.folder))
    _remove(target)
    if os.path.isfile(distribution.folder):
        shutil.copyfile(distribution.folder, target)
        return target
    os.makedirs(target)
    for name in _RECORDS:
        source = os.path.join(distribution.folder, name)
        if os.path.isfile(source):
            shutil.copyfile(source, os.path.join(target, name))
    url = {"url": Path(distribution.local).as_uri(), "dir_info": {"editable": True}}
    Path(target, "direct_url.json").write_text(json.dumps(url), encoding="utf-8")
    inner = os.path.basename(target)
    names = sorted({*os.listdir(target), "RECORD"})
    Path(target, "RECORD").write_text("".join(f"{inner}/{name},,\n" for name in names), encoding="utf-8")
    return target


def remove_placed(paths: Sequence[str], site: str) -> None:
    """Remove what `place_pointers` copied into `site`."""
    for path in paths:
        if os.path.dirname(os.path.normpath(path)) == os.path.normpath(site):
            _remove(path)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
