"""An environment's folders in the store, lowest first, and no more of them than the kernel takes.

The caller has a lease on the environment's layers.
"""

from __future__ import annotations

import functools
import os
import stat
from itertools import accumulate
from typing import TYPE_CHECKING

from lamella.layers.errors import UnsafeLayer
from lamella.layers.mounting.overlay import MAX_LOWERS
from lamella.layers.oci.annotations import CONDA_META, PACKAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.layers.oci.documents import Digest, Layer
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.store.store import Store


def folders(store: Store, environment: PublishedEnvironment) -> dict[Digest, str]:
    """By diff_id, in the manifest's order, the folder that belongs at the image prefix; layers without one are left out.

    Raises `UnsafeLayer` for a layer that has a link there, or above: its folder would be one of the node's.
    """
    prefix = environment.prefix
    found = {layer.diff_id: _folder(store.layer_path(layer.diff_id), prefix, layer) for layer in environment.layers}
    return {diff_id: folder for diff_id, folder in found.items() if folder}


def for_prefix(store: Store, environment: PublishedEnvironment, prefix: str, *, writable: bool = False) -> list[str]:
    """The environment's folders, so that it works at `prefix`: if that differs from the image prefix, the topmost folder
    holds the files that name the image prefix, rewritten. It holds conda's records, complete, and with `writable` the file
    by which edits show. Raises `MountError` with the name of a file that can't be rewritten, and for an invalid `prefix`.
    """
    parts = folders(store, environment)
    top = ""
    if writable or prefix != environment.prefix or _has_records(environment):
        from lamella.layers.mounting import added_folder

        top = added_folder.make(store, environment, parts, prefix, writable=writable)
    lowers = merged(store, environment, parts, limit=MAX_LOWERS - bool(top))
    return [*lowers, top] if top else lowers


def for_replacement(store: Store, environment: PublishedEnvironment, prefix: str) -> list[str]:
    """As `for_prefix`, of at least two folders: a mount of one would be a bind mount, which has no source of its own."""
    found = for_prefix(store, environment, prefix)
    if len(found) > 1:
        return found
    from lamella.layers.store import derived

    return [derived.make(store, "empty", (), lambda _: None), *found]


def merged(
    store: Store, environment: PublishedEnvironment, parts: Mapping[Digest, str], *, limit: int = MAX_LOWERS
) -> list[str]:
    """The environment's folders `parts`, at most `limit` of them: the smallest are merged into one tree, of hardlinks if possible.

    Merging moves these below the others. Packages don't share paths, so the environment stays the same.
    """
    if len(parts) <= limit:
        return list(parts.values())
    # Of the blobs, which the manifest knows: to ask the store costs a file's read for each layer.
    sizes = {layer.diff_id: layer.descriptor.size for layer in environment.layers if layer.diff_id in parts}
    small = smallest(sizes, limit)
    among = set(small)
    from lamella.layers.mounting import link_tree
    from lamella.layers.store import derived

    sources = [parts[diff_id] for diff_id in small]
    lowest = derived.make(store, "merged", small, lambda target: link_tree.lay_linked_or_copied(sources, target))
    return [lowest, *(folder for diff_id, folder in parts.items() if diff_id not in among)]


def smallest(sizes: Mapping[Digest, int], limit: int) -> Sequence[Digest]:
    """Which layers to merge into one, in their order, so that `limit` are left of them."""
    if len(sizes) <= limit:
        return ()
    small = set(sorted(sizes, key=lambda diff_id: (sizes[diff_id], diff_id))[: len(sizes) - limit + 1])
    return tuple(diff_id for diff_id in sizes if diff_id in small)


def _has_records(environment: PublishedEnvironment) -> bool:
    """Whether a layer may hold conda's records, which `added_folder` completes."""
    return any(layer.descriptor.annotations.get(PACKAGE) == CONDA_META for layer in environment.layers)


def _folder(tree: str, prefix: str, layer: Layer) -> str:
    folder, link = _looked_at(tree, prefix)
    if link:
        from lamella.layers.store.incoming import named

        raise UnsafeLayer(f"cannot mount layer {named(layer)}: its {link} is a link and must be a folder")
    return folder


@functools.lru_cache(maxsize=8)
def _steps(prefix: str) -> tuple[str, ...]:
    """Each folder on the way to `prefix`, relative to the root: opt, opt/env."""
    return tuple(accumulate(prefix.split("/")[1:], "{}/{}".format))


@functools.lru_cache(maxsize=1 << 13)
def _looked_at(tree: str, prefix: str) -> tuple[str, str]:
    """The folder at `prefix` in a layer, empty if it has none, and the part of its path that is a link.

    A process that mounts often looks once: a layer's place names its content, and the caller has seen it there.
    """
    # One lstat for each step, for which a mount of hundreds of layers has the time: realpath() takes ten times as long.
    mode = 0
    for step in _steps(prefix):
        try:
            mode = os.lstat(f"{tree}/{step}").st_mode
        except (FileNotFoundError, NotADirectoryError):
            return "", ""
        if stat.S_ISLNK(mode):
            return "", step
    return (tree + prefix if stat.S_ISDIR(mode) else ""), ""
