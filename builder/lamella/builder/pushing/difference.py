"""Compare two environments package by package, each published or on this disk.

Published packages are compared by their unpacked bytes: two builds of one version that differ in a
byte are different, two compressions of the same bytes are equal. An environment on this disk is
compared by layer keys, without building it, under the other side's image prefix and compression.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lamella.builder.layer import layer_set
from lamella.builder.scanning.options import ScanOptions
from lamella.layers.oci.annotations import KEY, ORIGIN, PACKAGE, VERSION
from lamella.layers.oci.documents import LAYER_GZIP, Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.published.environment import PublishedEnvironment, for_platform, read_index
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.text import size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.content.blob import Compression
    from lamella.builder.environment import Environment
    from lamella.layers.progress.display import Progress


@dataclass(frozen=True, slots=True)
class ComparedPackage:
    """A package of one side."""

    name: str
    origin: str
    version: str
    key: str
    size: int
    """Bytes of its blob; of its files if it is on this disk, perhaps not built."""
    diff_id: str = ""
    """Empty if it is on this disk."""

    def same(self, other: ComparedPackage) -> bool:
        """Whether a node that has one already has the other."""
        if self.diff_id and other.diff_id:
            return self.diff_id == other.diff_id
        return self.key == other.key


@dataclass(frozen=True, slots=True)
class ComparedEnvironment:
    """One side of a comparison."""

    name: str
    """Reference with its digest, or the prefix on this disk."""
    python: str
    platform: str
    image_prefix: str
    content: Environment | PublishedEnvironment = field(repr=False, compare=False)
    """Its scan, or its manifests."""

    @property
    def is_published(self) -> bool:
        """Whether it is in a registry or folder, and not on this disk."""
        return isinstance(self.content, PublishedEnvironment)


@dataclass(frozen=True, slots=True, repr=False)
class Difference:
    """Changes from one environment to another, each group sorted by name."""

    added: tuple[ComparedPackage, ...]
    removed: tuple[ComparedPackage, ...]
    changed: tuple[tuple[ComparedPackage, ComparedPackage], ...]
    """Pairs of before and after: another version, or other files of the same version."""
    same: int
    sides: tuple[ComparedEnvironment, ...] = ()
    """Before and after; empty if packages alone were compared."""

    @property
    def moves(self) -> int:
        """Bytes that a node with the first environment downloads for the second."""
        return sum(item.size for item in self.added) + sum(after.size for _, after in self.changed)

    def __repr__(self) -> str:
        """One line."""
        counts = f"{len(self.added):,} added, {len(self.removed):,} removed, {len(self.changed):,} changed"
        return f"<Difference: {counts}, {self.same:,} the same; {size(self.moves)} to move>"


def diff(
    before: str | Environment,
    after: str | Environment,
    scan_options: ScanOptions = ScanOptions(),
    *,
    compression: Compression = "zstd",
    platform: Platform | None = None,
    trust: Trust = Trust(),
    progress: Progress | None = None,
) -> Difference:
    """Compare two environments; each is a reference, the folder of an environment, or already scanned.

    An environment on this disk is compared with a published one as if pushed with the same image
    prefix and compression, and with another one on this disk under `scan_options` and `compression`.
    `platform` selects one of a reference's platforms; the default is this machine's. Raises
    `BuilderError` and `LayersError`.
    """
    for side in (before, after):
        if isinstance(side, str) and not os.path.isdir(side):
            Reference.parse(side)
    sides = [
        _fetched(side, platform, trust) if isinstance(side, str) and not os.path.isdir(side) else side
        for side in (before, after)
    ]
    like = next((side.environment for side in sides if isinstance(side, _Published)), None)
    image_prefix = like.prefix if like else scan_options.image_prefix
    compression = compression_of(like) if like else compression

    def resolved(side: str | Environment | _Published) -> Environment | _Published:
        if not isinstance(side, str):
            return side
        from lamella.builder.scanning.scan import scan

        return scan(side, replace(scan_options, image_prefix=image_prefix), progress=progress)

    def items(side: Environment | _Published) -> tuple[ComparedPackage, ...]:
        if isinstance(side, _Published):
            return published(side.environment)
        return scanned(side, image_prefix=image_prefix, compression=compression)

    old, new = map(resolved, sides)
    return replace(
        difference(items(old), items(new)), sides=(_compared(old, image_prefix), _compared(new, image_prefix))
    )


@dataclass(frozen=True, slots=True)
class _Published:
    reference: str
    environment: PublishedEnvironment


def _fetched(text: str, platform: Platform | None, trust: Trust) -> _Published:
    reference = Reference.parse(text)
    with closing(open_storage(reference, trust)) as storage:
        wanted = platform or Platform.here()
        index = read_index(storage, reference, trust, wanted)
        return _Published(str(index.reference), for_platform(index, wanted))


def _compared(side: Environment | _Published, image_prefix: str) -> ComparedEnvironment:
    if isinstance(side, _Published):
        found = side.environment
        return ComparedEnvironment(side.reference, found.python, str(found.platform), found.prefix, found)
    return ComparedEnvironment(side.prefix, side.interpreter.version, str(side.platform), image_prefix, side)


def difference(before: Iterable[ComparedPackage], after: Iterable[ComparedPackage]) -> Difference:
    """Return the changes from `before` to `after`."""
    old = {(item.name, item.origin): item for item in before}
    new = {(item.name, item.origin): item for item in after}
    changed = tuple((old[name], new[name]) for name in sorted(old.keys() & new.keys()) if not old[name].same(new[name]))
    return Difference(
        tuple(new[name] for name in sorted(new.keys() - old.keys())),
        tuple(old[name] for name in sorted(old.keys() - new.keys())),
        changed,
        len(old.keys() & new.keys()) - len(changed),
    )


def published(environment: PublishedEnvironment) -> tuple[ComparedPackage, ...]:
    """Packages of a published environment."""
    return tuple(
        ComparedPackage(
            layer.descriptor.annotations.get(PACKAGE, ""),
            layer.descriptor.annotations.get(ORIGIN, ""),
            layer.descriptor.annotations.get(VERSION, ""),
            layer.descriptor.annotations.get(KEY, str(layer.descriptor.digest)),
            layer.descriptor.size,
            str(layer.diff_id),
        )
        for layer in environment.layers
    )


def compression_of(environment: PublishedEnvironment) -> Compression:
    """Compression of a published environment's layers, which is part of their keys."""
    return "gzip" if any(layer.descriptor.media_type == LAYER_GZIP for layer in environment.layers) else "zstd"


def scanned(environment: Environment, *, image_prefix: str, compression: Compression) -> tuple[ComparedPackage, ...]:
    """Packages of a scanned environment, with the keys that a push with these settings gives them."""
    layers = layer_set.layers(environment, image_prefix=image_prefix, compression=compression, image_layers=1)
    return tuple(
        ComparedPackage(
            content.package.name,
            content.package.origin,
            content.package.version,
            content.wanted.key,
            content.wanted.size,
        )
        for content in layers.packages
    )
