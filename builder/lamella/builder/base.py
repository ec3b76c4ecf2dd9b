"""An image to put the environment on: its layers and config, from a registry or a layout."""

from __future__ import annotations

from lamella.builder.image import Base
from lamella.layers.errors import InvalidContent
from lamella.layers.oci import INDEX_TYPES, ImageConfig, Index, Manifest, Platform, layers_of
from lamella.layers.reference import Reference
from lamella.layers.storage import ReadOnlyStorage, fetch_document


def read(storage: ReadOnlyStorage, reference: Reference, platform: Platform) -> Base:
    """The image for `platform` that `reference` names; `InvalidContent` says what there is where it has none."""
    descriptor = storage.resolve(str(reference.digest) if reference.digest else reference.tag)
    digest = descriptor.digest
    if descriptor.media_type in INDEX_TYPES:
        index = Index.parse(fetch_document(storage, descriptor))
        fitting = [
            entry
            for entry in index.manifests
            if entry.platform
            and (entry.platform.os, entry.platform.architecture) == (platform.os, platform.architecture)
        ]
        if not fitting:
            there = ", ".join(str(entry.platform) for entry in index.manifests if entry.platform) or "none with a name"
            raise InvalidContent(f"the base {reference} has no image for {platform}: it has {there}")
        descriptor = fitting[0]
    manifest = Manifest.parse(fetch_document(storage, descriptor))
    config = ImageConfig.parse(fetch_document(storage, manifest.config))
    name = str(Reference(reference.registry, reference.repository, reference.folder, reference.tag))
    if reference.is_layout:
        # Where a folder is on this machine is neither other machines' business nor the image's content.
        name = reference.tag
    return Base(name, digest, layers_of(manifest, config), config)
