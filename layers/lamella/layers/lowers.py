"""An environment's folders in the store, lowest first, and no more of them than the kernel takes.

The caller has a lease on the environment's layers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers import derived, tree
from lamella.layers.errors import MountError
from lamella.layers.overlay import MAX_LOWERS
from lamella.layers.relocate import CannotRelocate, lists, relocate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.layers.oci import Digest
    from lamella.layers.published import PublishedEnvironment
    from lamella.layers.store import Store


def folders(store: Store, environment: PublishedEnvironment) -> dict[Digest, str]:
    """By diff_id, in the manifest's order, the folder that belongs at the image prefix; layers without one are left out."""
    found = {layer.diff_id: store.layer_path(layer.diff_id) + environment.prefix for layer in environment.layers}
    return {diff_id: folder for diff_id, folder in found.items() if os.path.isdir(folder)}


def for_prefix(store: Store, environment: PublishedEnvironment, prefix: str) -> list[str]:
    """The environment's folders, so that it works at `prefix`: where that is another than the image prefix, the topmost
    folder holds the files that name the image prefix, rewritten. Raises `MountError` with the name of a file that can't be.
    """
    parts = folders(store, environment)
    listed = {diff_id: folder for diff_id, folder in parts.items() if prefix != environment.prefix and lists(folder)}
    if not listed:
        return merged(store, environment, parts)
    top = derived.make(store, f"relocated to {prefix}", tuple(listed), lambda target: _rewrite(listed, prefix, target))
    return [*merged(store, environment, parts, limit=MAX_LOWERS - 1), top]


def linked(store: Store, environment: PublishedEnvironment) -> str:
    """The environment as a tree beside the store, made once, that works where it is."""
    diff_ids = tuple(folders(store, environment))
    place = derived.path(store, "links", diff_ids)
    return derived.make(store, "links", diff_ids, lambda target: _lay(for_prefix(store, environment, place), target))


def whole(store: Store, environment: PublishedEnvironment) -> str:
    """The environment as a tree beside the store, made once, that works at the image prefix."""
    parts = folders(store, environment)
    return derived.make(store, "whole", tuple(parts), lambda target: _lay(list(parts.values()), target))


def merged(
    store: Store, environment: PublishedEnvironment, parts: Mapping[Digest, str], *, limit: int = MAX_LOWERS
) -> list[str]:
    """The environment's folders `parts`, the smallest of them merged into one tree of hardlinks where there are more than `limit`.

    Merging moves these below the others. Packages don't share paths, so that nobody sees a difference.
    """
    if len(parts) <= limit:
        return list(parts.values())
    # Of the blobs, which the manifest knows: to ask the store costs a file's read for each layer.
    sizes = {layer.diff_id: layer.descriptor.size for layer in environment.layers if layer.diff_id in parts}
    small = smallest(sizes, limit)
    among = set(small)
    lowest = derived.make(
        store, "merged", small, lambda target: tree.lay([parts[diff_id] for diff_id in small], target, "hardlinks")
    )
    return [lowest, *(folder for diff_id, folder in parts.items() if diff_id not in among)]


def smallest(sizes: Mapping[Digest, int], limit: int) -> Sequence[Digest]:
    """Which layers to merge into one, in their order, so that `limit` are left of them."""
    if len(sizes) <= limit:
        return ()
    small = set(sorted(sizes, key=lambda diff_id: (sizes[diff_id], diff_id))[: len(sizes) - limit + 1])
    return tuple(diff_id for diff_id in sizes if diff_id in small)


def _rewrite(listed: Mapping[Digest, str], prefix: str, target: str) -> None:
    def write(path: str, content: bytes, mode: int) -> None:
        there = f"{target}/{path}"
        os.makedirs(os.path.dirname(there), exist_ok=True)
        with open(there, "wb") as file:
            file.write(content)
        os.chmod(there, mode)

    try:
        for folder in listed.values():
            relocate(folder, prefix, write)
    except CannotRelocate as error:
        raise MountError(f"the environment can't be moved to {prefix}: {error}") from error


def _lay(sources: Sequence[str], target: str) -> None:
    try:
        tree.lay(sources, target, "hardlinks")
    except MountError:
        tree.lay(sources, target, "copies")
