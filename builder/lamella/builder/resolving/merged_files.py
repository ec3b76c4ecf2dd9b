"""Files of conda packages that a disk which merges names could not hold beside each other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.files import disk_names
from lamella.builder.installed.conda import conda_packages
from lamella.layers.published.findings import Finding
from lamella.layers.text import counted, escaped

if TYPE_CHECKING:
    from collections.abc import Iterator


def merged_files(prefix: str) -> Iterator[Finding]:
    """Yield one finding for each conda package in `prefix` that the disk holds only in part. Raises `OSError`.

    rattler unpacks onto this disk, also into its cache: descriptions of terminals in ncurses differ in case alone.
    """
    if not disk_names.merges_names(os.path.dirname(prefix)):
        return
    packages, _ = conda_packages(prefix)
    owners = {path: each for each in packages for path in each.files or ()}
    found: dict[str, list[tuple[str, str]]] = {}
    for path, other in disk_names.indistinct(sorted(owners, key=str.swapcase)).items():
        found.setdefault(owners[path].name, []).append((path, other))
    for name, pairs in sorted(found.items()):
        path, other = min(pairs)
        message = (
            f"{name}: {counted(len(pairs), 'file')} cannot be on this disk beside others, such as {escaped(path, 200)} "
            f"beside {escaped(other, 200)}; set LAMELLA_CACHE and RATTLER_CACHE_DIR to case-sensitive folders, or push from "
            "Linux"
        )
        yield Finding("warning", "disk", name, message)
