"""What a push will do, decided before it does any of it: a value that can be printed, tested and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from lamella.builder.layer.cache import BuiltLayer
    from lamella.layers.oci.documents import Descriptor

Action = Literal["build", "upload", "reuse"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A layer that the push needs."""

    key: str
    packages: tuple[str, ...]
    """Names and versions: one for a package's own layer, all members of a bundle."""
    size: int
    """Bytes of the files that ship, without byte code."""
    members: tuple[str, ...] = ()
    """Of a bundle: its members' keys."""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """What becomes of one wanted layer."""

    wanted: Wanted
    action: Action
    """`build` it and upload it; `upload` the blob that was built before; `reuse` what the destination has."""
    built: BuiltLayer | None
    """What the key is known to be; None where nobody built it yet."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push will do."""

    reference: str
    layers: tuple[PlannedLayer, ...]
    """Packages' own layers, then bundles."""
    unchanged: bool = False
    """The tag names exactly this environment already: nothing is done."""
    base: tuple[Descriptor, ...] = ()
    """Of a dry run: the base's layers that the destination lacks."""

    def __repr__(self) -> str:
        """One line."""
        build, upload, reuse = (len(self.chosen(action)) for action in get_args(Action))
        return (
            f"<PushPlan {self.reference}: {counted(build, 'layer')} to build, {upload:,} to upload, {reuse:,} to reuse>"
        )

    def chosen(self, action: Action) -> tuple[PlannedLayer, ...]:
        """The layers that `action` is planned for."""
        return tuple(layer for layer in self.layers if layer.action == action)

    @property
    def upload_size(self) -> int:
        """Bytes to upload of blobs that exist, the base's not among them; those that are built first are not known yet."""
        return sum(layer.built.size for layer in self.layers if layer.action == "upload" and layer.built)


def plan(
    reference: str,
    wanted: Sequence[Wanted],
    known: Mapping[str, BuiltLayer],
    here: Callable[[BuiltLayer], bool],
    there: Collection[str],
) -> PushPlan:
    """Decides for each of `wanted`; `known` maps keys to what they are, `here` tells whether the cache has a blob,
    `there` holds the digests that the destination has.

    A known layer whose blob is nowhere within reach is built again: its members then are needed here, too, if it is a
    bundle, and come from the cache or the destination.
    """
    layers = []
    for layer in wanted:
        built = known.get(layer.key)
        action: Action = "build"
        if built and str(built.digest) in there:
            action = "reuse"
        elif built and here(built):
            action = "upload"
        layers.append(PlannedLayer(layer, action, built))
    return PushPlan(reference, tuple(layers))
