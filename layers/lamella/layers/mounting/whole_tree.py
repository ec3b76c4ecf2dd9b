"""An environment as one tree beside the store, made once, for machines that refuse the mount of its folders.

The caller has a lease on the environment's layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.layers.mounting.link_tree import lay_linked_or_copied
from lamella.layers.mounting.lowerdirs import folders, for_prefix
from lamella.layers.store import derived

if TYPE_CHECKING:
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.store.store import Store


def linked(store: Store, environment: PublishedEnvironment) -> str:
    """The environment as a tree that works where it is."""
    diff_ids = tuple(folders(store, environment))
    place = derived.path(store, "links", diff_ids)
    return derived.make(
        store,
        "links",
        diff_ids,
        lambda target: lay_linked_or_copied(for_prefix(store, environment, place), target),
    )


def whole(store: Store, environment: PublishedEnvironment) -> str:
    """The environment as a tree that works at the image prefix."""
    parts = folders(store, environment)
    return derived.make(store, "whole", tuple(parts), lambda target: lay_linked_or_copied(list(parts.values()), target))
