"""The files that a package's layer will hold, before it is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.builder.content.entry import Rewritten
from lamella.builder.environment import File
from lamella.builder.layer.layer_set import shipped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.content.entry import Entry
    from lamella.builder.environment import Environment, Package

How = Literal["unchanged", "rewritten", "generated", "compiled"]


@dataclass(frozen=True, slots=True)
class ShippedFile:
    """A file or symlink of a layer to come."""

    path: str
    """Relative to the image prefix."""
    size: int
    """Bytes to ship; 0 for a symlink, and for byte code, whose size is known when it is compiled."""
    executable: bool
    link: str | None
    """Target of a symlink; None for a file."""
    digest: str
    """sha256 of the bytes to ship, 64 hex digits; empty for a symlink and for byte code."""
    source: str
    """Absolute path on this disk; for byte code, that of its module; empty for a generated file."""
    how: How
    """Whether the bytes on this disk ship unchanged, or with the prefix, an interpreter or a library path rewritten; or
    whether the file is generated, as RECORD and scripts are, or compiled."""


def shipped_files(
    environment: Environment, package: Package, image_prefix: str = "/opt/env"
) -> tuple[ShippedFile, ...]:
    """Return the files of the layer of `package`, by path. Reads the files to rewrite. Raises `CannotBuild`."""
    return tuple(sorted(_files(environment, package, image_prefix), key=lambda file: file.path))


def _files(environment: Environment, package: Package, image_prefix: str) -> Iterator[ShippedFile]:
    below = f"{image_prefix.strip('/')}/"
    content = shipped(environment, package, image_prefix)
    for entry in content.entries:
        path, executable = entry.path.removeprefix(below), entry.target is None and bool(entry.mode & 0o100)
        source, how = _origin(entry)
        yield ShippedFile(path, entry.size, executable, entry.target, entry.digest, source, how)
    for module in content.modules:
        source, _ = _origin(module.source)
        yield ShippedFile(
            module.path.removeprefix(below), 0, executable=False, link=None, digest="", source=source, how="compiled"
        )


def _origin(entry: Entry) -> tuple[str, How]:
    if isinstance(entry.content, File):
        return entry.content.source, "unchanged"
    if isinstance(entry.content, Rewritten):
        return entry.content.file.source, "rewritten"
    return "", "generated"
