"""What a push makes of an environment, as its user decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.image.documents import ImageSettings

if TYPE_CHECKING:
    from lamella.builder.content.pack import Compression
    from lamella.layers.signing.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Options of `push`. The defaults give the same index on every machine."""

    image_prefix: str = "/opt/env"
    """Where the environment lives on nodes."""
    image: ImageSettings = ImageSettings()
    """What the runnable image runs, and how it is described."""
    base: str | None = None
    """A reference to an image to put the environment on; None for an image of the environment alone."""
    compression: Compression = "zstd"
    """Of each layer; part of its key."""
    max_layers: int = 100
    """The most layers that the runnable image has, the base's among them."""
    dry_run: bool = False
    """Plan only: build nothing, upload nothing."""
    append: bool = False
    """Keep what the tag names for other platforms."""
    sbom: bool = False
    """Attach a CycloneDX bill of materials."""
    signing_key: PrivateKey | None = None
    """Sign the index with this key."""
