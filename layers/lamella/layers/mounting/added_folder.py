"""The topmost folder of an environment, made on the node: files that name its prefix, conda's records, checks of sources."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lamella.layers.errors import MountError
from lamella.layers.mounting import conda_records, link_tree, source_checks
from lamella.layers.relocation.lists import lists, relocate
from lamella.layers.relocation.prefixes import CannotRelocate, check_path
from lamella.layers.store import derived

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.layers.oci.documents import Digest
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.store.store import Store


def make(
    store: Store, environment: PublishedEnvironment, parts: Mapping[Digest, str], prefix: str, *, writable: bool
) -> str:
    """The folder to put on top of the environment's folders `parts` at `prefix`, made once; empty if nothing is to be added.

    The caller has a lease on the layers. Raises `MountError`, see `lowerdirs.for_prefix`.
    """
    more = source_checks.checked(environment, parts.values()) if writable else {}
    records = conda_records.recorded(environment, parts)
    if prefix == environment.prefix and not more and not records:
        return ""
    try:
        check_path(prefix)
        moved = prefix != environment.prefix
        listed = {diff_id: folder for diff_id, folder in parts.items() if moved and lists(folder)}
    except CannotRelocate as error:
        raise MountError(f"cannot relocate the environment to {prefix}: {error}") from error
    if not listed and not more and not records:
        return ""
    # A tree is kept as long as its layers: without any to rewrite, it is the first one's.
    made_of = tuple({**listed, **records}) or tuple(parts)[:1]
    kind = " ".join([f"relocated to {prefix}", *sorted(more), *(["with records"] if records else [])])

    def build(target: str) -> None:
        added = {path: (content, 0o644) for path, content in conda_records.complete(records.values()).items()}
        _rewrite(listed, prefix, target, {**more, **added})

    return derived.make(store, kind, made_of, build)


def _rewrite(listed: Mapping[Digest, str], prefix: str, target: str, more: Mapping[str, tuple[bytes, int]]) -> None:
    for path, (content, mode) in more.items():
        link_tree.put(target, path, content, mode)
    try:
        for folder in listed.values():
            relocate(folder, prefix, partial(link_tree.put, target))
    except CannotRelocate as error:
        raise MountError(f"cannot relocate the environment to {prefix}: {error}") from error
