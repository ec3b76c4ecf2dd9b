"""One package of a published environment, as its layer's annotations describe it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.oci.annotations import KEY, ORIGIN, PACKAGE, UNPACKED, VERSION
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.text import size

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Layer

_ANNOTATIONS = (PACKAGE, VERSION, ORIGIN, KEY, UNPACKED)


@dataclass(frozen=True, slots=True)
class PublishedPackage:
    """One package and its layer; a text is empty if the annotation is missing."""

    name: str
    version: str
    origin: str
    """`conda`, `pypi`, `python`, `local`, `system` or `unowned`."""
    key: str
    """The layer key."""
    unpacked: int
    """Bytes of its files; 0 if not recorded."""
    layer: Layer

    @classmethod
    def of(cls, layer: Layer) -> PublishedPackage:
        """The package that `layer` holds."""
        about = layer.descriptor.annotations
        name, version, origin, key, unpacked = (about.get(each, "") for each in _ANNOTATIONS)
        return cls(name, version, origin, key, bounded_decimal(unpacked) or 0, layer)

    @property
    def size(self) -> int:
        """Bytes of the layer's blob."""
        return self.layer.descriptor.size

    def __repr__(self) -> str:
        return f"<PublishedPackage {self.name} {self.version}: {size(self.size)}>"
