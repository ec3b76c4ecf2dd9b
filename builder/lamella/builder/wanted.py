"""What a push needs: every package's canonical content with its layer key, and the layers of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder import bytecode, content
from lamella.builder.bundle import partition
from lamella.builder.key import bundle_key, layer_key
from lamella.builder.pack import compression_name
from lamella.builder.plan import Wanted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.builder.bytecode import Module
    from lamella.builder.canonical import Entry
    from lamella.builder.content import Measurements
    from lamella.builder.environment import Environment, Package
    from lamella.builder.pack import Compression


@dataclass(frozen=True, slots=True)
class Content:
    """One package, ready to be packed."""

    package: Package
    entries: tuple[Entry, ...]
    modules: tuple[Module, ...]
    """Those that are compiled."""
    wanted: Wanted


@dataclass(frozen=True, slots=True)
class Layers:
    """Everything that ships of one environment."""

    contents: tuple[Content, ...]
    """By package name: the layers of the package manifest. Packages without files have none."""
    bundles: tuple[Wanted, ...]
    alone: tuple[Wanted, ...]
    """The packages' own layers that the runnable image has, the interpreter's first."""

    @property
    def image(self) -> tuple[Wanted, ...]:
        """The layers of the runnable image, in their order."""
        return (*self.alone, *self.bundles)

    @property
    def all(self) -> tuple[Wanted, ...]:
        """Each once: the packages', then the bundles."""
        return (*(content.wanted for content in self.contents), *self.bundles)


def layers(
    environment: Environment,
    *,
    image_prefix: str,
    compression: Compression,
    image_layers: int,
    measurements: Measurements | None = None,
) -> Layers:
    """Reads nothing but the few files that are rewritten. `image_layers`: how many the runnable image may have."""
    contents = []
    for package in environment.packages:
        made = _content(environment, package, image_prefix, compression, measurements)
        if made.entries:
            contents.append(made)
    by_name = {f"{made.package.origin}:{made.package.name}": made.wanted for made in contents}
    alone, bundles = partition([(name, wanted.size) for name, wanted in by_name.items()], image_layers)
    # The interpreter changes least: engines that keep layers by their order keep it longest.
    alone.sort(key=lambda name: (not name.endswith(":python"), name))
    return Layers(
        tuple(contents),
        tuple(_bundle([by_name[name] for name in bundle]) for bundle in bundles),
        tuple(by_name[name] for name in alone),
    )


def _content(
    environment: Environment,
    package: Package,
    image_prefix: str,
    compression: Compression,
    measurements: Measurements | None,
) -> Content:
    entries = content.entries(environment, package, image_prefix, measurements)
    modules = tuple(bytecode.modules(entries, environment.interpreter, image_prefix))
    key = layer_key(
        entries,
        image_prefix=image_prefix,
        magic=environment.interpreter.magic if modules else "",
        compression=compression_name(compression),
    )
    name = f"{package.name} {package.version}".rstrip()
    return Content(package, entries, modules, Wanted(key, (name,), sum(entry.size for entry in entries)))


def _bundle(members: Sequence[Wanted]) -> Wanted:
    keys = tuple(member.key for member in members)
    names = tuple(name for member in members for name in member.packages)
    return Wanted(bundle_key(keys), names, sum(member.size for member in members), keys)
