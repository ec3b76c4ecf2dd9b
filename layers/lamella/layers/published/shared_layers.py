"""Which other tags of the same repository or layout have a layer, too."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from lamella.layers.errors import LayersError
from lamella.layers.oci.annotations import IMAGE
from lamella.layers.oci.documents import INDEX_TYPES, MANIFEST_TYPES, Digest, Index, Manifest
from lamella.layers.oci.storage import fetch_document
from lamella.layers.oci.tags import is_derived
from lamella.layers.oci.values import bounded_decimal

if TYPE_CHECKING:
    from collections.abc import Collection

    from lamella.layers.oci.storage import ReadOnlyStorage, Storage

LIMIT = 16
"""Other tags that are read: three small documents each, and a repository may have thousands."""


class SharedLayers(NamedTuple):
    """Tags that share layers."""

    tags: dict[Digest, tuple[str, ...]]
    """By a layer's digest, the other tags that have it, in their order; only layers that some other tag has."""
    compared: tuple[str, ...]
    """The tags that were read, in their order."""
    others: int
    """How many other tags there are; only up to the limit are read."""


def shared(storage: Storage, tag: str, digests: Collection[Digest], *, limit: int = LIMIT) -> SharedLayers:
    """Return which of `digests`, the layers of `tag`, other tags of `storage` have as well.

    Reads the tags nearest to `tag` in the order of their names, numbers in them counted as numbers, and passes over tags of
    other images. Raises `LayersError` if tags can't be listed.
    """
    everything = sorted((name for name in storage.tags() if not is_derived(name)), key=_natural)
    others = [name for name in everything if name != tag]
    at = sum(_natural(name) < _natural(tag) for name in others)
    # As many before it as after it, and more on one side where the other has fewer.
    start = max(0, min(at - limit // 2, len(others) - limit))
    chosen = others[start : start + limit]
    with ThreadPoolExecutor(min(8, len(chosen) or 1), "lamella-tags") as pool:
        held = list(pool.map(lambda name: _layers(storage, name), chosen))
    found: dict[Digest, tuple[str, ...]] = {}
    for name, layers in zip(chosen, held, strict=True):
        for digest in layers.intersection(digests):
            found[digest] = (*found.get(digest, ()), name)
    return SharedLayers(found, tuple(chosen), len(others))


def _layers(storage: ReadOnlyStorage, tag: str) -> frozenset[Digest]:
    try:
        descriptor = storage.resolve(tag)
        if descriptor.media_type not in INDEX_TYPES:
            return frozenset()
        index = Index.parse(fetch_document(storage, descriptor))
        manifests = [
            Manifest.parse(fetch_document(storage, entry))
            for entry in index.manifests
            if IMAGE in entry.annotations and entry.media_type in MANIFEST_TYPES
        ]
    except LayersError:
        return frozenset()  # a tag that went meanwhile, or no environment's
    return frozenset(layer.digest for manifest in manifests for layer in manifest.layers)


def _natural(name: str) -> list[tuple[int, str]]:
    # A layout's tags are in its index.json, of any length.
    parts = re.split(r"([0-9]+)", name[:256])
    return [(-1 if (number := bounded_decimal(part)) is None else number, part) for part in parts]
