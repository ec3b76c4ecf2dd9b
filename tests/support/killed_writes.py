"""Pushes and copies for `support.killed`: what a kill leaves at a destination and in the layer cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.errors import LamellaError, NotFound, StoreError
from lamella.layers.oci import referrers
from lamella.layers.oci.reference import Reference
from lamella.layers.progress.display import Silent
from lamella.layers.published.copy import copy
from lamella.layers.published.findings import Finding
from lamella.layers.published.validate import verify_reference
from lamella.layers.settings.trust import Trust
from lamella.layers.signing.cosign import verify_signature
from lamella.layers.signing.keys import read_private_key
from lamella.layers.storages import open_storage
from support.keys import key_pair
from support.packages import SITE, environment, package

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.environment import Environment


@dataclass
class Destination:
    """Where a round writes: one layout that is made anew each time, or another repository each time."""

    place: str
    """`oci:FOLDER`, or `HOST/REPOSITORY`."""
    data: Path
    """Folder of its blobs, a registry's own."""
    round: int = 0

    @property
    def tag(self) -> str:
        """Reference that is written."""
        return f"{self.place}:v1" if self.place.startswith("oci:") else f"{self.place}-{self.round}:v1"

    def renew(self) -> None:
        """Begin with an empty one."""
        self.round += 1
        if self.place.startswith("oci:"):
            shutil.rmtree(self.data, ignore_errors=True)

    def named(self) -> str:
        """Digest that the tag names; empty without one."""
        reference = Reference.parse(self.tag)
        with contextlib.suppress(NotFound, StoreError), contextlib.closing(open_storage(reference, Trust())) as storage:
            return str(storage.resolve(reference.tag).digest)
        return ""

    def damage(self) -> Iterator[str]:
        """Blobs with wrong bytes, and everything that the tag names and that is not there, byte for byte."""
        yield from _wrong_blobs(self.data)
        if self.named():
            for fault in verify_reference(self.tag, deep=True).faults:
                yield f"{fault.what} {fault.digest}: {fault.reason}"

    def unattached(self, public: str) -> Iterator[str]:
        """Findings, bill of materials and signature that are missing."""
        reference = Reference.parse(self.tag)
        with contextlib.closing(open_storage(reference, Trust())) as storage:
            found = referrers.referrers(storage, storage.resolve(reference.tag))
        if len(found) != 2:
            yield f"{len(found)} artifacts are attached, not 2"
        try:
            verify_signature(self.tag, public)
        except LamellaError as error:
            yield str(error)


class Push:
    """A signed push with findings and a bill of materials, to an empty destination or over an older push.

    Some rounds begin with an empty cache, some with the remains of killed pushes there. To a layout, it compiles byte code.
    """

    def __init__(self, destination: Destination, folder: Path, chance: random.Random) -> None:
        self.destination, self.chance, self.cache = destination, chance, folder / "cache"
        private, self.public = key_pair(folder)
        self.options = PushOptions(max_layers=5, sbom=True, signing_key=read_private_key(private))
        compiles = destination.place.startswith("oci:")
        self.old, self.new = (made(folder / name, name, compiles=compiles) for name in ("old", "new"))
        expected = push(
            f"oci:{folder}/expected:v1", self.new, PushOptions(max_layers=5), cache=LayerCache(f"{folder}/other")
        )
        self.expected, self.before = expected.reference.partition("@")[2], 0

    def prepare(self) -> None:
        self.destination.renew()
        if self.chance.random() < 0.5:
            push(self.destination.tag, self.old, self.options, cache=LayerCache(str(self.cache)), progress=Silent())
        if self.chance.random() < 0.5:
            shutil.rmtree(self.cache, ignore_errors=True)
        self.before = self._files()

    def run(self) -> None:
        push(self.destination.tag, self.new, self.options, cache=LayerCache(str(self.cache)), progress=Silent())

    def is_between(self) -> bool:
        return self._files() > self.before and self.destination.named() != self.expected

    def damage(self) -> Iterator[str]:
        yield from _wrong_blobs(self.cache)
        yield from self.destination.damage()

    def wrong(self) -> Iterator[str]:
        if self.destination.named() != self.expected:
            yield "the tag does not name this push"
        yield from self.destination.unattached(self.public)

    def _files(self) -> int:
        return sum(1 for folder in (self.cache, self.destination.data) for _ in _files(folder))


class Copy:
    """A copy of such a push, to an empty destination or over the copy of an older one."""

    def __init__(self, destination: Destination, folder: Path, chance: random.Random) -> None:
        self.destination, self.chance, self.before = destination, chance, 0
        private, self.public = key_pair(folder)
        options = PushOptions(max_layers=5, sbom=True, signing_key=read_private_key(private))
        self.sources = [f"oci:{folder}/source:{name}" for name in ("old", "new")]
        for name, source in zip(("old", "new"), self.sources, strict=True):
            pushed = push(source, made(folder / name, name), options, cache=LayerCache(f"{folder}/cache"))
            self.digest = pushed.reference.partition("@")[2]

    def prepare(self) -> None:
        self.destination.renew()
        if self.chance.random() < 0.5:
            copy(self.sources[0], self.destination.tag)
        self.before = sum(1 for _ in _files(self.destination.data))

    def run(self) -> None:
        copy(self.sources[1], self.destination.tag)

    def is_between(self) -> bool:
        return self.destination.named() != self.digest and sum(1 for _ in _files(self.destination.data)) > self.before

    def damage(self) -> Iterator[str]:
        yield from self.destination.damage()

    def wrong(self) -> Iterator[str]:
        if self.destination.named() != self.digest:
            yield "the tag does not name this copy"
        yield from self.destination.unattached(self.public)


def made(prefix: Path, name: str, *, compiles: bool = False) -> Environment:
    """An environment of 8 packages; two of other names differ in the last one."""
    chance = random.Random(1)
    packages = []
    for number in range(8):
        files = {f"{SITE}/p{number}/{part}.py": f"x = {chance.randbytes(9000 // (number + 1))!r}\n" for part in "ab"}
        if number == 7:
            files[f"{SITE}/p{number}/name.py"] = f"name = {name!r}\n"
        files[f"{SITE}/p{number}-1.0.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: p{number}\nVersion: 1.0\n"
        packages.append(package(prefix, f"p{number}", files))
    found = Finding("warning", "patched", "p1", "p1 was patched")
    return replace(environment(prefix, *packages, compiles=compiles), findings=(found,))


def _wrong_blobs(folder: Path) -> Iterator[str]:
    for path in _files(folder):
        # A registry keeps each blob as `DIGEST/data`.
        name = path.parent.name if path.name == "data" else path.name
        if len(name) == 64 and path.parts[-2] != path.name[:2] and _hash(path) != name:
            yield f"{path} does not have its digest"


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
