"""Compute the layers of a push: each package's canonical content with its layer key, and the image's layers."""

from __future__ import annotations

import hashlib
import json
import marshal
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING

from lamella.builder.content.blob import compression_name
from lamella.builder.content.key import bundle_key, layer_key
from lamella.builder.layer.bundle import partition
from lamella.builder.layer.known_keys import KnownKeys
from lamella.builder.layer.plan import WantedLayer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.builder.content.blob import Compression
    from lamella.builder.content.bytecode import Module
    from lamella.builder.content.entry import Entry
    from lamella.builder.environment import Environment, File, Package
    from lamella.builder.layer.code_fingerprint import Remembered


@dataclass(frozen=True, slots=True)
class Shipped:
    """Content of a package's layer."""

    entries: tuple[Entry, ...]
    modules: tuple[Module, ...]
    """Modules to compile."""


@dataclass(frozen=True, slots=True)
class PlannedPackage:
    """A package with the layer that it becomes."""

    package: Package
    wanted: WantedLayer
    content: Shipped | None = field(default=None, compare=False)
    """Content of the layer, if its key had to be computed from it."""


@dataclass(frozen=True, slots=True)
class LayerSet:
    """All layers of one environment."""

    packages: tuple[PlannedPackage, ...]
    """Layers of the package manifest, by package name. Packages without files have none."""
    bundles: tuple[WantedLayer, ...]
    alone: tuple[WantedLayer, ...]
    """Packages' own layers in the runnable image, the interpreter's first."""

    @property
    def image(self) -> tuple[WantedLayer, ...]:
        """Layers of the runnable image, in order."""
        return (*self.alone, *self.bundles)

    @property
    def all(self) -> tuple[WantedLayer, ...]:
        """Each layer once: the packages', then the bundles."""
        return (*(content.wanted for content in self.packages), *self.bundles)


def layers(
    environment: Environment,
    *,
    image_prefix: str,
    compression: Compression,
    image_layers: int,
    notes: Remembered | None = None,
    known: KnownKeys | None = None,
    answers: Sequence[WantedLayer | None] | None = None,
) -> LayerSet:
    """Compute the layers of `environment`. Reads only the files to rewrite, and none of a package in `notes`.

    `image_layers` is the maximum for the runnable image. `known`: layers of the packages of an earlier push. `answers`:
    of `recall`.
    """
    known = known or KnownKeys()
    known.begin((environment.interpreter, environment.prefixes, image_prefix, compression))
    made: dict[int, Shipped] = {}

    def ship(number: int, package: Package) -> Shipped:
        made[number] = shipped(environment, package, image_prefix, notes)
        return made[number]

    def wanted(number: int, package: Package) -> WantedLayer | None:
        if answers is not None:
            return answers[number]
        return _wanted(environment, package, image_prefix, compression, notes, ship=partial(ship, number, package))

    found = [
        (package, known.wanted(package, partial(wanted, number, package)))
        for number, package in enumerate(environment.packages)
    ]
    contents = [PlannedPackage(each, layer, made.get(number)) for number, (each, layer) in enumerate(found) if layer]
    by_name = {f"{each.package.origin}:{each.package.name}": each.wanted for each in contents}
    alone, bundles = partition([(name, wanted.size) for name, wanted in by_name.items()], image_layers)
    # The interpreter changes least: engines that keep layers by their order keep it longest.
    alone.sort(key=lambda name: (not name.endswith(":python"), name))
    return LayerSet(
        tuple(contents),
        tuple(_bundle([by_name[name] for name in bundle]) for bundle in bundles),
        tuple(by_name[name] for name in alone),
    )


def recall(
    environment: Environment, image_prefix: str, compression: Compression, notes: Remembered
) -> list[WantedLayer | None] | None:
    """Return the layer of each package of this very scan, as `remember` kept them, or None."""
    packages = environment.packages
    content = notes.note(_scan_question(environment, image_prefix, compression)) if environment.digest else None
    try:
        return [
            WantedLayer(str(key), (_name(package),), int(size)) if key else None
            for package, (key, size) in zip(packages, json.loads(content or b"null"), strict=True)
        ]
    except (ValueError, TypeError):
        return None  # nothing is remembered, or it is damaged


def remember(
    environment: Environment, image_prefix: str, compression: Compression, notes: Remembered, layers: LayerSet
) -> None:
    """Keep the layers of the packages of this scan, in which no two collide."""
    if not environment.digest:
        return
    wanted = {id(each.package): each.wanted for each in layers.packages}
    found = [wanted.get(id(package)) for package in environment.packages]
    content = json.dumps([[each.key, each.size] if each else [None, 0] for each in found]).encode()
    notes.keep_note(_scan_question(environment, image_prefix, compression), content)


def _scan_question(environment: Environment, image_prefix: str, compression: Compression) -> str:
    return f"keys {compression_name(compression)} {image_prefix} {environment.digest}"


def shipped(environment: Environment, package: Package, image_prefix: str, notes: Remembered | None = None) -> Shipped:
    """Return the content of the layer of `package`."""
    # A push of an unchanged environment has every key without.
    from lamella.builder.content import bytecode
    from lamella.builder.content import package as content

    entries = content.entries(environment, package, image_prefix, notes)
    installed = package.origin in ("conda", "pypi", "python")
    return Shipped(
        entries, tuple(bytecode.modules(entries, environment.interpreter, image_prefix, installed=installed))
    )


def _wanted(
    environment: Environment,
    package: Package,
    image_prefix: str,
    compression: Compression,
    notes: Remembered | None,
    *,
    ship: Callable[[], Shipped],
) -> WantedLayer | None:
    """Layer of a package, or None if nothing of it ships.

    It follows from the scan's hashes and from the rules, so that a remembered answer for these saves
    computing the content, which `ship` does.
    """
    question = _question(environment, package, image_prefix, compression) if notes else ""
    answer = (notes.note(question) or b"").decode().split() if notes else []
    if len(answer) != 2:
        made = ship()
        key = layer_key(
            made.entries,
            image_prefix=image_prefix,
            magic=environment.interpreter.magic if made.modules else "",
            compression=compression_name(compression),
        )
        answer = [key if made.entries else "-", str(sum(entry.size for entry in made.entries))]
        if notes:
            notes.keep_note(question, " ".join(answer).encode())
    key, size = answer
    return None if key == "-" else WantedLayer(key, (_name(package),), int(size))


def _name(package: Package) -> str:
    return f"{package.name} {package.version}".rstrip()


# path, mode, size, digest, target, holds; in C, since a push calls it for 44,000 files.
_facts: Callable[[File], tuple[object, ...]] = itemgetter(0, 2, 3, 4, 5, 6)


def _question(environment: Environment, package: Package, image_prefix: str, compression: Compression) -> str:
    """Everything that a package's key depends on, besides the code, as one line."""
    # Version 2 has no references, so that equal values have equal bytes.
    facts = list(map(_facts, package.files))
    run_paths = [(file.path, *file.run_path) for file in package.files if file.run_path]
    files = hashlib.sha256(marshal.dumps((facts, run_paths), 2))
    interpreter = environment.interpreter
    about = (
        compression_name(compression), image_prefix, package.origin, package.name, package.records,
        interpreter.version, interpreter.cache_tag, interpreter.magic, interpreter.stdlib,
        b"\0".join(environment.prefixes).hex(), files.hexdigest(),
    )  # fmt: skip
    return f"key {' '.join(about)}"


def _bundle(members: Sequence[WantedLayer]) -> WantedLayer:
    keys = tuple(member.key for member in members)
    names = tuple(name for member in members for name in member.packages)
    return WantedLayer(bundle_key(keys), names, sum(member.size for member in members), keys)
