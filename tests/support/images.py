"""Small images and environments for tests of what moves them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from lamella.layers.oci import annotations as names
from lamella.layers.oci.documents import (
    CONFIG,
    INDEX,
    LAYER_TAR,
    MANIFEST,
    UNKNOWN_PLATFORM,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    Platform,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.layers.oci.storage import Content, Storage

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


@dataclass(frozen=True)
class Thing:
    """Content with its descriptor."""

    descriptor: Descriptor
    content: bytes

    @property
    def opened(self) -> Content:
        """What a push takes."""
        return partial(BytesIO, self.content)

    def pushed(self, storage: Storage, tag: str = "") -> Thing:
        """Pushes itself."""
        storage.push(self.descriptor, self.opened, tag=tag)
        return self


def blob(content: bytes, annotations: Mapping[str, str] | None = None) -> Thing:
    """A layer's blob that is its own tar, as far as anybody looks."""
    return Thing(Descriptor.of(LAYER_TAR, content, annotations), content)


def image(layers: Sequence[Thing], platform: Platform = AMD64, **more: str) -> tuple[Thing, Thing]:
    """The config and the manifest of an image; `more` is the manifest's annotations."""
    config = ImageConfig(platform, tuple(Digest.of(layer.content) for layer in layers)).to_json()
    described = Descriptor.of(CONFIG, config)
    manifest = Manifest(described, tuple(layer.descriptor for layer in layers), more).to_json()
    return Thing(described, config), Thing(Descriptor.of(MANIFEST, manifest), manifest)


def push_image(storage: Storage, layers: Sequence[bytes], tag: str = "") -> Thing:
    """Pushes an image of these layers; its manifest."""
    blobs = [blob(content) for content in layers]
    config, manifest = image(blobs)
    for thing in (*blobs, config):
        thing.pushed(storage)
    return manifest.pushed(storage, tag)


def push_environment(
    storage: Storage,
    tag: str = "v1",
    platforms: Sequence[Platform] = (AMD64,),
    packages: Sequence[bytes] = (b"one", b"two"),
    prefix: str = "/opt/env",
) -> Thing:
    """Pushes an index as `lamella push` makes it, with a runnable image and a package manifest for each platform."""
    entries = []
    for platform in platforms:
        layers = [blob(content, {names.PACKAGE: content.decode("ascii", "replace")}) for content in packages]
        config, runnable = image(layers, platform)
        marks = {names.PREFIX: prefix, names.PYTHON: "3.12.4", names.GLIBC: "2.28"}
        _, packed = image(layers, platform, **marks)
        for thing in (*layers, config, runnable, packed):
            thing.pushed(storage)
        engines = runnable.descriptor
        entries.append(Descriptor(MANIFEST, engines.digest, engines.size, platform=platform))
        own = {names.IMAGE: str(engines.digest), names.DOCKER_REFERENCE_TYPE: "attestation-manifest"}
        nodes = packed.descriptor
        entries.append(Descriptor(MANIFEST, nodes.digest, nodes.size, own, UNKNOWN_PLATFORM))
    index = Index(tuple(entries)).to_json()
    return Thing(Descriptor.of(INDEX, index), index).pushed(storage, tag)
