"""Options of a push."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.image.documents import ImageSettings

if TYPE_CHECKING:
    from lamella.builder.content.blob import Compression
    from lamella.builder.content.precompiler import Precompiler
    from lamella.layers.oci.documents import Platform
    from lamella.layers.signing.keys import PrivateKey


@dataclass(frozen=True, slots=True)
class PushOptions:
    """Options of `push`. The defaults give the same index on every machine."""

    image_prefix: str = "/opt/env"
    """Path of the environment on nodes."""
    image: ImageSettings = ImageSettings()
    """Command, variables and labels of the runnable image."""
    base: str | None = None
    """Reference of the image below the environment; None for an image of the environment alone."""
    compression: Compression = "zstd"
    """Compression of each layer; part of its key."""
    max_layers: int = 100
    """Maximum number of layers of the runnable image, including the base's."""
    dry_run: bool = False
    """Plan only: build nothing, upload nothing."""
    check: bool = False
    """Ask the destination for everything that the tag names, also for what it had within the last day."""
    append: bool = False
    """Keep the tag's images for other platforms."""
    keep: tuple[Platform, ...] | None = None
    """With `append`, keep these of the tag's other platforms alone; None for all."""
    sbom: bool = False
    """Attach a CycloneDX bill of materials."""
    signing_key: PrivateKey | None = None
    """Sign the index with this key."""
    precompiler: Precompiler | None = field(default=None, repr=False, compare=False)
    """That of the scan, for the byte code that it made meanwhile."""
