"""Results of the last push of one process to one destination, reused by its next push.

Each is a value that the next push would compute, or read back, the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.layer.collisions import check_collisions, have_same_places, is_disjoint
from lamella.builder.layer.known_keys import KnownKeys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.environment import Package
    from lamella.builder.layer.cache import BuiltLayer
    from lamella.layers.oci.documents import Digest


class Earlier:
    """The last push; empty before the first. Not to be shared by pushes to several destinations."""

    def __init__(self) -> None:
        self.keys = KnownKeys()
        self._disjoint: tuple[Package, ...] = ()
        self._index: Digest | None = None
        self._layers: Mapping[str, BuiltLayer] = {}

    @property
    def is_pushed(self) -> bool:
        """Whether an earlier push has succeeded: the destination grants the right to push."""
        return self._index is not None

    def check_collisions(self, packages: Sequence[Package]) -> None:
        """Raise `CannotBuild` if layers of `packages` collide. Packages whose paths were checked before are not again."""
        packages = tuple(packages)
        if not (have_same_places(self._disjoint, packages) or is_disjoint(packages)):
            check_collisions(packages)
            return  # equal files at one path, of which an edit may change one
        self._disjoint = packages

    def layers_of(self, index: Digest) -> Mapping[str, BuiltLayer] | None:
        """Layers by key that `index` names, if it is the index of the last push; None of any other."""
        return self._layers if index == self._index else None

    def pushed(self, index: Digest, layers: Mapping[str, BuiltLayer]) -> None:
        """Keep the index of a push, and all layers that it names, by key."""
        self._index, self._layers = index, dict(layers)
