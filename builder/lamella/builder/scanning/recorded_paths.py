"""Adapt the records of installers to the disk.

A record can name a file through a link, such as `lib64/…`. An export that was moved, and a mount that is not at
the image prefix, have files that name their place, whose recorded hashes do not apply.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import plain_text
from lamella.builder.prefix.places import in_environment
from lamella.layers.relocation.lists import LISTS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.scanning.disk import Disk


def with_adapted_records(collected: Inventory, prefix: str, disk: Disk) -> Inventory:
    """Return `collected` with the paths and hashes in its records as they are on this disk."""
    return collected._replace(
        conda=_unless_moved(_by_real_path(collected.conda, collected, prefix, disk), prefix, disk),
        pip=_unless_moved(_by_real_path(collected.pip, collected, prefix, disk), prefix, disk),
    )


def _by_real_path(found: Iterable[Distribution], collected: Inventory, prefix: str, disk: Disk) -> list[Distribution]:
    """Return `found` with each recorded path that has no entry replaced by its file's path, if that has one."""
    entries = collected.entries
    folders: dict[str, str] = {}

    def located(path: str) -> str:
        folder, _, name = path.rpartition("/")
        if folder not in folders:
            folders[folder] = disk.real(os.path.join(prefix, folder))
        here = in_environment(os.path.join(folders[folder], name), collected.places)
        return next((each for each in here if each in entries), path)

    result = []
    for each in found:
        missing = [path for path in each.files or () if path not in entries and not path.endswith(".pyc")]
        moved = {path: there for path in missing if (there := located(path)) != path}
        kept = {path: digest for path, digest in (each.files or {}).items() if path not in moved} if moved else {}
        for path, there in moved.items():
            kept[there] = kept.get(there) or (each.files or {})[path]
        result.append(replace(each, files=kept) if moved else each)
    return result


def _unless_moved(found: list[Distribution], prefix: str, disk: Disk) -> list[Distribution]:
    """Return `found` without the recorded hashes of files that an export or a mount at `prefix` rewrote for its place."""
    lists = os.path.join(prefix, LISTS)
    moved: set[str] = set()
    for name in disk.names(lists):
        try:
            listed = json.loads(disk.read(os.path.join(lists, name)).decode("utf-8", "surrogateescape"))
            moved |= {plain_text(each["path"]) for each in listed["files"]}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # damaged: its files are reported as patched
    if not moved:
        return found
    return [
        each
        if moved.isdisjoint(each.files or ())
        else replace(each, files={path: "" if path in moved else digest for path, digest in (each.files or {}).items()})
        for each in found
    ]
