"""Read a base image: its layers and config, from a registry or a layout."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.builder.image.documents import Base
from lamella.layers.errors import InvalidContent
from lamella.layers.oci.documents import INDEX_TYPES, ImageConfig, Index, Manifest, Platform, layers_of
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import ReadOnlyStorage, fetch_document
from lamella.layers.signing import cosign

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.settings.trust import Trust


def read_base(
    storage: ReadOnlyStorage, reference: Reference, platform: Platform, trust: Trust, *, flag: str = "--base"
) -> Base:
    """Read the image of `reference` for `platform`; messages name the `flag` that asked for it.

    Raises `NotSigned` unless signed as `trust` and this machine's policy require, `InvalidContent` with the platforms
    that the reference has if `platform` is not one.
    """
    descriptor = storage.resolve(str(reference.digest) if reference.digest else reference.tag)
    cosign.require(storage, reference, descriptor.digest, trust)
    digest = descriptor.digest
    if descriptor.media_type in INDEX_TYPES:
        index = Index.parse(fetch_document(storage, descriptor))
        fitting = choose(index.manifests, platform)
        if not fitting:
            available = ", ".join(str(entry.platform) for entry in index.manifests if entry.platform) or "unnamed"
            raise InvalidContent(f"{flag} {reference}: no image for {platform}; available: {available}")
        descriptor = fitting
    manifest = Manifest.parse(fetch_document(storage, descriptor))
    config = ImageConfig.parse(fetch_document(storage, manifest.config))
    name = str(Reference(reference.registry, reference.repository, reference.folder, reference.tag))
    if reference.is_layout:
        # The layout's folder is a path of this machine, and not part of the image's content.
        name = reference.tag
    return Base(name, digest, layers_of(manifest, config), config)


def choose(entries: Sequence[Descriptor], platform: Platform) -> Descriptor | None:
    """Choose the image that runs on `platform`: of the same variant, else of the newest older one.

    Source: containerd's platforms package, whose defaults are arm/v7 and arm64/v8.
    """
    for variant in _variants(platform):
        for entry in entries:
            # Skip attestations and others of an unknown platform.
            if entry.platform and _normal(entry.platform) == Platform(platform.os, platform.architecture, variant):
                return entry
    return None


def _variants(platform: Platform) -> list[str]:
    newest = _normal(platform).variant
    if newest[:1] == "v" and newest[1:].isdecimal():
        # Debian's armel is v5, its armhf v7; x86-64-v1 has no name.
        oldest = {"arm": 5, "arm64": 8, "amd64": 2}.get(platform.architecture, 1)
        older = [f"v{number}" for number in range(int(newest[1:]), oldest - 1, -1)]
        return older if platform.architecture == "arm" else [*older, ""]
    return [newest]


def _normal(platform: Platform) -> Platform:
    variant = platform.variant
    if platform.architecture == "arm":
        variant = variant or "v7"
    elif (platform.architecture, variant) in {("arm64", "v8"), ("amd64", "v1")}:
        variant = ""
    return replace(platform, variant=variant)
