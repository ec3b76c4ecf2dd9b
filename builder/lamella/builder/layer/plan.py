"""The plan of a push: a value that can be printed, tested and counted before anything is done."""

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
class WantedLayer:
    """A layer that the push needs."""

    key: str
    packages: tuple[str, ...]
    """Names and versions: one for a package's own layer, all members of a bundle."""
    size: int
    """Bytes of the files to ship, without byte code."""
    members: tuple[str, ...] = ()
    """Keys of a bundle's members."""


@dataclass(frozen=True, slots=True)
class PlannedLayer:
    """A wanted layer, and the action that it needs."""

    wanted: WantedLayer
    action: Action
    """`build` and upload it; `upload` the blob that was built before; `reuse` the destination's."""
    built: BuiltLayer | None
    """The layer of its key; None if it was never built."""


@dataclass(frozen=True, slots=True)
class PushPlan:
    """Actions of a push."""

    reference: str
    layers: tuple[PlannedLayer, ...]
    """Packages' own layers, then bundles."""
    unchanged: bool = False
    """Whether the tag names exactly this environment already: nothing is done."""
    base: tuple[Descriptor, ...] = ()
    """Layers of the base that the destination lacks; for a dry run only."""

    def __repr__(self) -> str:
        """One line."""
        build, upload, reuse = (len(self.chosen(action)) for action in get_args(Action))
        return (
            f"<PushPlan {self.reference}: {counted(build, 'layer')} to build, {upload:,} to upload, {reuse:,} to reuse>"
        )

    def chosen(self, action: Action) -> tuple[PlannedLayer, ...]:
        """Layers with this action."""
        return tuple(layer for layer in self.layers if layer.action == action)

    @property
    def upload_size(self) -> int:
        """Bytes of existing blobs to upload, without the base's; layers to build have no size yet."""
        return sum(layer.built.size for layer in self.layers if layer.action == "upload" and layer.built)


def plan(
    reference: str,
    wanted: Sequence[WantedLayer],
    known: Mapping[str, BuiltLayer],
    here: Callable[[BuiltLayer], bool],
    there: Collection[str],
) -> PushPlan:
    """Choose the action for each of `wanted`.

    `known` maps keys to layers, `here` checks whether the cache has a blob, and `there` has the
    destination's digests. A known layer whose blob is out of reach is built again. If it is a bundle, its
    members are needed too, from the cache or the destination.
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
