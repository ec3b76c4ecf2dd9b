"""What a store holds: each environment with its size, alone and shared, and the bytes by kind."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.mounting import claims
from lamella.layers.published.environment import PublishedEnvironment, available_environments
from lamella.layers.store import leases, names
from lamella.layers.store.document_cache import Stored
from lamella.layers.text import counted, size
from lamella.layers.upkeep.gc import candidates, plan

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Digest
    from lamella.layers.store.store import Store

MONTH = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class StoredEnvironment:
    """One environment of a store, for one platform."""

    names: tuple[str, ...]
    """References without digest by which it was pulled, the latest last."""
    digest: Digest
    """The index's."""
    environment: PublishedEnvironment
    missing: int
    """Layers that are not in the store."""
    bytes: int
    """Bytes on this disk of its layers."""
    alone: int
    """Bytes of the layers that no other environment of the store has: what `gc` gets back without it."""
    used: float
    """When it was last used, in seconds since 1970."""
    users: tuple[str, ...]
    """Processes and mounts that use it now."""

    @property
    def shared(self) -> int:
        """Bytes of the layers that other environments of the store have, too."""
        return self.bytes - self.alone

    def __repr__(self) -> str:
        name = self.names[-1] if self.names else str(self.digest)
        return f"<StoredEnvironment {name}: {size(self.bytes)}, {size(self.alone)} alone>"


@dataclass(frozen=True, slots=True)
class StoreUsage:
    """Bytes of a store by kind, and those that `gc` can free now."""

    path: str
    layers: int
    """Number of layers."""
    layer_bytes: int
    nameless_bytes: int
    """Bytes of layers that belong to no environment of the store: a pull was interrupted, or the manifest freed."""
    document_bytes: int
    trees: int
    """Number of trees made of layers: merged, relocated or linked."""
    tree_bytes: int
    """Bytes of these that they do not share with layers."""
    unfinished_bytes: int
    """Bytes of layers that a pull is bringing, and of remains that the next `gc` removes."""
    change_bytes: int
    """Bytes of the changes in writable mounts."""
    kept_bytes: int
    """Bytes that running commands and mounts use."""
    reclaimable: int
    """Bytes that `gc --all` frees."""
    unused: int
    """Bytes that `gc --older-than 30d` frees."""
    free: int
    """Bytes free on the file system."""
    capacity: int
    """Bytes of the file system."""

    @property
    def bytes(self) -> int:
        """Bytes of everything."""
        kinds = (self.layer_bytes, self.document_bytes, self.tree_bytes, self.unfinished_bytes, self.change_bytes)
        return sum(kinds)

    def __repr__(self) -> str:
        return f"<StoreUsage {self.path}: {counted(self.layers, 'layer')}, {size(self.bytes)}; {size(self.reclaimable)} reclaimable>"


def stored_environments(store: Store) -> tuple[StoredEnvironment, ...]:
    """List the environments whose manifests are in `store`, the latest used first. Changes nothing.

    A layer that is missing is counted, since `gc` frees layers by age. Raises `StoreError`.
    """
    if not store.is_made():
        return ()
    with store.explained():
        documents = Stored(store)
        found = _found(documents)
        sizes = {layer.diff_id: 0 for _, each in found for layer in each.layers}
        sizes = {diff_id: store.size(diff_id) for diff_id in store.present(sizes)}
        owners = Counter(diff_id for _, each in found for diff_id in {layer.diff_id for layer in each.layers})
        users = _users(store, found)

    def stored(index: Digest, each: PublishedEnvironment) -> StoredEnvironment:
        diff_ids = {layer.diff_id for layer in each.layers}
        here = diff_ids & sizes.keys()
        return StoredEnvironment(
            names=tuple(names.of(store, index)),
            digest=index,
            environment=each,
            missing=len(diff_ids) - len(here),
            bytes=sum(sizes[diff_id] for diff_id in here),
            alone=sum(sizes[diff_id] for diff_id in here if owners[diff_id] == 1),
            # As `gc` reckons: the configuration is read whenever the environment is used.
            used=max((documents.used(document.digest) for document in each.documents), default=0.0),
            users=users.get(each.descriptor.digest, ()),
        )

    listed = [stored(index, each) for index, each in found]
    return tuple(sorted(listed, key=lambda each: (-each.used, str(each.digest))))


def disk_usage(store: Store) -> StoreUsage:
    """Count the bytes of `store` by kind. Changes nothing. Raises `StoreError`."""
    place = store.path
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    with store.explained():
        disk = os.statvfs(place)
        items = candidates(store) if store.is_made() else []
        named = {layer.diff_id for _, each in _found(Stored(store)) for layer in each.layers}
    layers = [item for item in items if item.diff_id]
    trees = [item for item in items if item.path.startswith(f"{store.path}/derived/")]
    documents = [item for item in items if item.path.startswith(f"{store.path}/documents/")]
    old = plan(items, keep_bytes=None, older_than=MONTH, now=time.time())
    return StoreUsage(
        path=store.path,
        layers=len(layers),
        layer_bytes=sum(item.bytes for item in layers),
        nameless_bytes=sum(item.bytes for item in layers if item.diff_id not in named),
        document_bytes=sum(item.bytes for item in documents),
        trees=len(trees),
        tree_bytes=sum(item.bytes for item in trees),
        unfinished_bytes=_below(f"{store.path}/partial"),
        change_bytes=_below(f"{store.path}/mounts"),
        kept_bytes=sum(item.bytes for item in items if item.kept),
        reclaimable=sum(item.bytes for item in items if not item.kept),
        unused=sum(item.bytes for item in old),
        free=disk.f_bavail * disk.f_frsize,
        capacity=disk.f_blocks * disk.f_frsize,
    )


def _found(documents: Stored) -> list[tuple[Digest, PublishedEnvironment]]:
    found = []
    for descriptor, index in documents.indexes():
        # An index of another kind, or one that an earlier version accepted.
        with suppress(InvalidContent):
            found += [
                (descriptor.digest, each) for each in available_environments(documents, index, str(descriptor.digest))
            ]
    return found


def _users(store: Store, found: list[tuple[Digest, PublishedEnvironment]]) -> dict[Digest, tuple[str, ...]]:
    """Who uses each environment, by its package manifest, which a lease and a hold name beside the layers."""
    manifests = [each.descriptor.digest for _, each in found]
    mounts = claims.users(store)
    users: dict[Digest, list[str]] = {}
    for user, digests in leases.users(store):
        for digest in digests.intersection(manifests):
            users.setdefault(digest, []).append(mounts.get(user, user))
    for digest, user in leases.kept(store, manifests).items():
        # A lease that found the disk full.
        if digest not in users:
            users[digest] = [mounts.get(user, user)]
    return {digest: tuple(sorted(found)) for digest, found in users.items()}


def _below(folder: str) -> int:
    """Bytes of the files below a folder, as far as this user may see them; each hard link once."""
    seen: dict[tuple[int, int], int] = {}
    for here, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                status = os.lstat(os.path.join(here, name))
                seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
