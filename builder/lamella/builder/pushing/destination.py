"""Read which layers a push's destination has, from its current tag, in at most six requests."""

from __future__ import annotations

from dataclasses import dataclass, field
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
    from collections.abc import Iterable

    from lamella.builder.pushing.belief import Belief
    from lamella.layers.oci.documents import Descriptor, Layer, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage


@dataclass(frozen=True, slots=True)
class Destination:
    """Contents of a tag."""

    index: Descriptor | None = None
    """None if there is no such tag."""
    digests: frozenset[str] = frozenset()
    """Digests of blobs that certainly exist, since a tag only ever names complete images."""
    known: dict[str, BuiltLayer] = field(default_factory=dict)
    """Layers by layer key, from the annotations of the tag's manifests."""


def current(storage: Storage, reference: Reference) -> Descriptor | None:
    """Descriptor that the tag names now, or None. One request."""
    try:
        return storage.resolve(reference.tag)
    except NotFound:
        return None


def read_destination(
    storage: Storage, reference: Reference, index: Descriptor, platform: Platform, belief: Belief
) -> Destination:
    """Read the layers that `index` holds for `platform`; empty if Lamella did not push it.

    Also empty if a signature that `belief` asks for is missing.
    """
    if not belief.holds(storage, index.digest):
        return Destination(index)
    try:
        found = published.read_index(storage, reference.at(index.digest), belief.trust, platform)
    except (InvalidContent, NotSigned):
        return Destination(index)
    digests: set[str] = set()
    known: dict[str, BuiltLayer] = {}
    for environment in found.environments:
        if environment.platform != platform:
            continue
        known |= built_layers(environment.layers, belief)
        digests |= _digests([*environment.documents, *environment.manifest.layers])
        if environment.image:
            image = Manifest.parse(fetch_document(storage, environment.image))
            config = ImageConfig.parse(fetch_document(storage, image.config))
            # Bundles have keys as well, so that each is merged only once in a team.
            known |= built_layers(layers_of(image, config), belief)
            digests |= _digests([environment.image, image.config, *image.layers])
    return Destination(index, frozenset(digests), known)


def others(storage: Storage, index: Descriptor, platform: Platform, belief: Belief) -> tuple[Pair, ...]:
    """Entries of the index for platforms other than `platform`; empty if Lamella did not push it.

    Raises `BuilderError` if there are some and `belief` does not hold for the index.
    """
    pairs = _others(storage, index, platform)
    if pairs and not belief.holds(storage, index.digest):
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


def built_layers(layers: Iterable[Layer], belief: Belief) -> dict[str, BuiltLayer]:
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
                belief.learned,
            )
    return known


def _digests(layers: Iterable[Descriptor]) -> set[str]:
    return {str(layer.digest) for layer in layers}
