"""The one maker of published images and environments: from opaque blobs, from files, or from layers that may be wrong.

`push_image` pushes what any engine reads; `push_environment` an index as `lamella push` makes it, of opaque blobs; `publish`
an environment of real files, which can be pulled and mounted; `publish_layers` one of given layers, right or wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING

from lamella.layers.layout import OciLayout
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
from support.tars import archive

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from lamella.layers.oci.documents import Layer
    from lamella.layers.oci.storage import OpenContent, Storage
    from support.tars import Files

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")


@dataclass(frozen=True)
class Blob:
    """Content with its descriptor."""

    descriptor: Descriptor
    content: bytes

    @property
    def opened(self) -> OpenContent:
        """Content as `Storage.push` takes it."""
        return partial(BytesIO, self.content)

    def pushed(self, storage: Storage, tag: str = "") -> Blob:
        """Push this blob and return it."""
        storage.push(self.descriptor, self.opened, tag=tag)
        return self


def blob(content: bytes, annotations: Mapping[str, str] | None = None) -> Blob:
    """A layer's blob, uncompressed; nothing checks that it is a tar."""
    return Blob(Descriptor.of(LAYER_TAR, content, annotations), content)


def image(
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest] | None = None,
    platform: Platform = AMD64,
    env: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
) -> tuple[Blob, Blob]:
    """Config and manifest of an image of `layers`; `diff_ids` default to their digests, for uncompressed layers."""
    known = tuple(layer.digest for layer in layers) if diff_ids is None else tuple(diff_ids)
    config = ImageConfig(platform, known, env=tuple(env)).to_json()
    described = Descriptor.of(CONFIG, config)
    manifest = Manifest(described, tuple(layers), annotations or {}).to_json()
    return Blob(described, config), Blob(Descriptor.of(MANIFEST, manifest), manifest)


def push_image(
    storage: Storage, layers: Sequence[bytes], tag: str = "", platform: Platform = AMD64, env: Sequence[str] = ()
) -> Blob:
    """Push an image of these uncompressed layers; its manifest."""
    blobs = [blob(content).pushed(storage) for content in layers]
    config, manifest = image([each.descriptor for each in blobs], None, platform, env)
    config.pushed(storage)
    return manifest.pushed(storage, tag)


def push_index(storage: Storage, entries: Sequence[Descriptor], tag: str = "") -> Blob:
    """Push an index of these entries, whose manifests are pushed already."""
    index = Index(tuple(entries)).to_json()
    return Blob(Descriptor.of(INDEX, index), index).pushed(storage, tag)


def package_manifest(manifest: Descriptor, runnable: Digest | None = None) -> Descriptor:
    """A package manifest's entry in an index, marked as that of the image `runnable`."""
    marks = {
        names.IMAGE: str(runnable or Digest.of(b"no image")),
        names.DOCKER_REFERENCE_TYPE: "attestation-manifest",
    }
    return Descriptor(MANIFEST, manifest.digest, manifest.size, marks, UNKNOWN_PLATFORM)


def push_environment(
    storage: Storage,
    tag: str = "v1",
    platforms: Sequence[Platform] = (AMD64,),
    packages: Sequence[bytes] = (b"one", b"two"),
    prefix: str = "/opt/env",
) -> Blob:
    """Push an index with a runnable image and a package manifest for each platform."""
    entries = []
    for platform in platforms:
        layers = [
            blob(content, {names.PACKAGE: content.decode("ascii", "replace")}).pushed(storage) for content in packages
        ]
        descriptors = [layer.descriptor for layer in layers]
        config, runnable = image(descriptors, None, platform)
        needs = {names.PREFIX: prefix, names.PYTHON: "3.12.4", names.GLIBC: "2.28"}
        _, packed = image(descriptors, None, platform, annotations=needs)
        for made in (config, runnable, packed):
            made.pushed(storage)
        engines = runnable.descriptor
        entries.append(Descriptor(MANIFEST, engines.digest, engines.size, platform=platform))
        entries.append(package_manifest(packed.descriptor, engines.digest))
    return push_index(storage, entries, tag)


def publish(
    layout: Path,
    layers: Sequence[Files],
    *,
    prefix: str = "/opt/env",
    platform: Platform | None = None,
    glibc: str = "",
    cpu: str = "",
    drivers: str = "",
    tag: str = "latest",
    python: str = "3.12.0",
    packages: Mapping[str, str] | None = None,
) -> str:
    """Push an environment of real files to a layout, one layer for each of `layers` (see `tars.archive`).

    The layers of the first `packages` have these names and versions. Returns the reference, pinned by digest.
    """
    storage = OciLayout(str(layout), create=True)
    descriptors = []
    named = list((packages or {}).items())
    for number, files in enumerate(layers):
        size = sum(len(content) for content in files.values())
        marks = {names.PACKAGE: f"p{number}", names.UNPACKED: str(size)}
        if number < len(named):
            marks |= {names.PACKAGE: named[number][0], names.VERSION: named[number][1]}
        descriptors.append(blob(archive(files, prefix), marks).pushed(storage).descriptor)
    needs = {names.GLIBC: glibc, names.CPU: cpu, names.DRIVERS: drivers}
    annotations = {names.PREFIX: prefix, names.PYTHON: python} | {key: text for key, text in needs.items() if text}
    index = _push_packages(storage, tag, descriptors, None, platform or Platform.here(), annotations)
    return f"oci:{layout}:{tag}@{index.descriptor.digest}"


def publish_layers(storage: Storage, tag: str, layers: Sequence[tuple[Layer, bytes]]) -> Digest:
    """Push an environment of these layers, right or wrong, for this machine's platform; the index's digest."""
    for made, content in layers:
        right = Descriptor.of(made.descriptor.media_type, content)
        if not storage.exists(right):
            storage.push(right, partial(BytesIO, content))
    descriptors, diff_ids = [made.descriptor for made, _ in layers], [made.diff_id for made, _ in layers]
    annotations = {names.PREFIX: "/opt/env"}
    return _push_packages(storage, tag, descriptors, diff_ids, Platform.here(), annotations).descriptor.digest


def _push_packages(
    storage: Storage,
    tag: str,
    layers: Sequence[Descriptor],
    diff_ids: Sequence[Digest] | None,
    platform: Platform,
    annotations: Mapping[str, str],
) -> Blob:
    config, manifest = image(layers, diff_ids, platform, annotations=annotations)
    config.pushed(storage)
    manifest.pushed(storage)
    return push_index(storage, [package_manifest(manifest.descriptor)], tag)
