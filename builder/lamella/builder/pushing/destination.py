"""Read a push's destination: its tag, the layers that the tag's manifests name, its other platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.builder.image.documents import Pair
from lamella.builder.layer.cache import BuiltLayer
from lamella.layers.errors import InvalidContent, NotFound, NotSigned
from lamella.layers.oci.annotations import IMAGE, KEY, UNPACKED
from lamella.layers.oci.documents import INDEX_TYPES, ImageConfig, Index, Manifest, layers_of
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.published import environment as published

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lamella.builder.pushing.reuse_policy import ReusePolicy
    from lamella.layers.oci.documents import Descriptor, Layer, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage


def current(storage: Storage, reference: Reference) -> Descriptor | None:
    """Descriptor that the tag names now, or None. One request."""
    try:
        return storage.resolve(reference.tag)
    except NotFound:
        return None


def read_layers(
    storage: Storage, reference: Reference, index: Descriptor, platform: Platform, reuse: ReusePolicy
) -> dict[str, BuiltLayer]:
    """Map layer keys to the layers that `index` names for `platform`; empty if Lamella did not push it.

    Also empty if a signature that `reuse` asks for is missing. Documents that are gone or damaged are skipped.
    """
    if not reuse.accepts(storage, index.digest):
        return {}
    known: dict[str, BuiltLayer] = {}
    try:
        found = published.read_index(storage, reference.at(index.digest), reuse.trust, platform)
        for environment in found.environments:
            if environment.platform != platform:
                continue
            known |= built_layers(environment.layers, reuse)
            if environment.image:
                image = Manifest.parse(fetch_document(storage, environment.image))
                config = ImageConfig.parse(fetch_document(storage, image.config))
                # Bundles have keys as well, so that each is merged only once in a team.
                known |= built_layers(layers_of(image, config), reuse)
    except (InvalidContent, NotFound, NotSigned):
        pass
    return known


def others(
    storage: Storage,
    index: Descriptor,
    platform: Platform,
    reuse: ReusePolicy,
    keep: Collection[Platform] | None = None,
) -> tuple[Pair, ...]:
    """Entries of the index for platforms other than `platform`, of those in `keep`; empty if Lamella did not push it.

    Raises `BuilderError` if there are some and `reuse` does not accept the index.
    """
    pairs = tuple(pair for pair in _others(storage, index, platform) if keep is None or pair.image.platform in keep)
    if pairs and not reuse.accepts(storage, index.digest):
        names = ", ".join(str(pair.image.platform) for pair in pairs)
        raise BuilderError(
            f"--append: the tag's {names} is not signed by this key; push it again with --sign, or push without --append"
        )
    return pairs


def _others(storage: Storage, index: Descriptor, platform: Platform) -> tuple[Pair, ...]:
    if index.media_type not in INDEX_TYPES:
        return ()
    entries = Index.parse(fetch_document(storage, index)).manifests
    images = {str(entry.digest): entry for entry in entries if IMAGE not in entry.annotations}
    parts: dict[str, list[Descriptor]] = {}
    for entry in entries:
        if entry.annotations.get(IMAGE) in images:
            parts.setdefault(entry.annotations[IMAGE], []).append(entry)
    pairs = [Pair(images[digest], tuple(packages)) for digest, packages in parts.items()]
    return tuple(pair for pair in pairs if pair.image.platform not in (None, platform))


def platforms(storage: Storage, index: Descriptor) -> tuple[Platform, ...]:
    """Platforms of the images in the index."""
    if index.media_type not in INDEX_TYPES:
        return ()
    entries = Index.parse(fetch_document(storage, index)).manifests
    return tuple(entry.platform for entry in entries if entry.platform and IMAGE not in entry.annotations)


def built_layers(layers: Iterable[Layer], reuse: ReusePolicy) -> dict[str, BuiltLayer]:
    """Map layer keys to layers, from the annotations of a manifest's layers."""
    known = {}
    for layer in layers:
        about = layer.descriptor.annotations
        key, unpacked = about.get(KEY, ""), bounded_decimal(about.get(UNPACKED))
        if len(key) == 64 and unpacked is not None:
            descriptor = layer.descriptor
            known[key] = BuiltLayer(
                descriptor.digest,
                descriptor.size,
                layer.diff_id,
                unpacked,
                descriptor.media_type,
                reuse.learned,
            )
    return known
