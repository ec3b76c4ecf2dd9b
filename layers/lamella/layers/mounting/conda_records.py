"""Complete conda records for a mount: a layer has its package's part, another layer the environment's."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from lamella.layers.oci.annotations import CONDA_META
from lamella.layers.published.conda_meta import ORIGINS, completed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.layers.oci.documents import Digest
    from lamella.layers.published.environment import PublishedEnvironment

_PACKAGE = ("unowned", CONDA_META)
_FOLDER = "conda-meta"
_LARGEST = 64 << 20
"""Bytes of a record: the largest packages list some 100,000 files, of 100 bytes each."""


def recorded(environment: PublishedEnvironment, parts: Mapping[Digest, str]) -> dict[Digest, str]:
    """Return those of the folders `parts` that hold records and the file that completes them; empty without it."""
    packages = [package for package in environment.packages if package.layer.diff_id in parts]
    if not any((package.origin, package.name) == _PACKAGE for package in packages):
        return {}
    chosen = [each for each in packages if each.origin == "conda" or (each.origin, each.name) == _PACKAGE]
    return {package.layer.diff_id: parts[package.layer.diff_id] for package in chosen}


def complete(folders: Iterable[str]) -> dict[str, bytes]:
    """Return the complete records of the environment in `folders`, and its history, by path."""
    records: dict[str, bytes] = {}
    origins = b""
    for folder in folders:
        origins = _read(folder, ORIGINS) or origins
        path = f"{folder}/{_FOLDER}"
        # A layer's publisher may have put a link there, to a folder of this machine.
        if os.path.isdir(path) and not os.path.islink(path):
            names = (name for name in os.listdir(path) if name.endswith(".json"))
            records |= {f"{_FOLDER}/{name}": content for name in names if (content := _read(path, name))}
    return completed(records, origins)


def _read(folder: str, path: str) -> bytes:
    try:
        found = f"{folder}/{path}"
        if os.path.realpath(os.path.dirname(found)) != os.path.realpath(folder) + os.path.dirname(f"/{path}").rstrip(
            "/"
        ):
            return b""
        descriptor = os.open(found, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST else b""
