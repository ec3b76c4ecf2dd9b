"""Brings the layers of an environment that are missing here into the store: `plan` decides, `pull` acts."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.layers import logs
from lamella.layers.errors import NoSpace
from lamella.layers.oci.annotations import UNPACKED
from lamella.layers.oci.documents import Platform
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.values import bounded_decimal
from lamella.layers.progress.display import Progress, Silent
from lamella.layers.published import environment as published
from lamella.layers.published.lost import NamingLost
from lamella.layers.published.package import PublishedPackage
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage
from lamella.layers.store import leases, names
from lamella.layers.store.document_cache import Remembered
from lamella.layers.store.store import Store
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator

    from lamella.layers.oci.documents import Digest, Layer
    from lamella.layers.published.environment import PublishedEnvironment


@dataclass(frozen=True, slots=True)
class PullPlan:
    """What a pull would do: each layer once, `fetch` with the largest blob first, so that none is left for the end."""

    fetch: tuple[Layer, ...]
    present: tuple[Layer, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the blobs to fetch."""
        return sum(layer.descriptor.size for layer in self.fetch)

    @property
    def unpacked(self) -> int:
        """Bytes of the files in them, as announced; else those of the blob."""
        return sum(_unpacked(layer) for layer in self.fetch)

    def __repr__(self) -> str:
        return f"<PullPlan {counted(len(self.fetch), 'layer')} to download, {size(self.bytes)}; {len(self.present)} in the store>"


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull did: the reference with its digest, the environment, and bytes of blobs that were moved."""

    reference: str
    environment: PublishedEnvironment
    plan: PullPlan
    moved: int
    keeps: tuple[Digest, ...] = ()
    """What to lease or hold so that it works without a request: the layers, and the documents that list them."""

    def __repr__(self) -> str:
        layers = f"{counted(len(self.plan.fetch), 'layer')} missing, {len(self.plan.present)} already in the store"
        return f"<Pulled {self.reference}: {layers}; {size(self.moved)} downloaded>"


def plan(layers: Iterable[Layer], here: Container[Digest]) -> PullPlan:
    """Which of `layers` to fetch when the diff_ids in `here` are in the store."""
    once = {layer.diff_id: layer for layer in layers}.values()
    missing = sorted(
        (layer for layer in once if layer.diff_id not in here),
        key=lambda layer: (-layer.descriptor.size, str(layer.diff_id)),
    )
    return PullPlan(tuple(missing), tuple(layer for layer in once if layer.diff_id in here))


def pull(
    reference: str,
    *,
    store: Store | None = None,
    platform: Platform | None = None,
    trust: Trust = Trust(),
    dry_run: bool = False,
    progress: Progress | None = None,
    check: Callable[[PublishedEnvironment], object] | None = None,
) -> Pulled:
    """Download, verify and unpack the layers of `reference` that the store lacks; no request if it lacks none.

    Idempotent. An interrupted pull keeps each finished layer. `platform`: by default this machine's. `check` gets the
    environment before anything is downloaded, and raises to stop the pull; whether this machine can run the environment is
    not checked, since other machines may share the store. The layers stay until `gc` removes them. Raises
    `InvalidReference`, `NotFound`, `InvalidContent`, `NotSigned`, `UnsafeLayer`, `StoreError`, `Denied`, `Unreachable`.
    """
    with leased(
        reference, store=store, platform=platform, trust=trust, dry_run=dry_run, progress=progress, check=check
    ) as pulled:
        return pulled


@contextmanager
def leased(
    reference: str,
    *,
    store: Store | None = None,
    platform: Platform | None = None,
    trust: Trust = Trust(),
    dry_run: bool = False,
    progress: Progress | None = None,
    check: Callable[[PublishedEnvironment], object] | None = None,
) -> Iterator[Pulled]:
    """`pull`, and keep the environment's layers leased until the block ends. Raises what `pull` raises."""
    store = store or Store()
    store.check_private()
    parsed = Reference.parse(reference)
    source = Remembered(store, lambda: open_storage(parsed, trust))
    try:
        wanted = platform or Platform.here()
        named = NamingLost(source, parsed)
        found = published.read_index(named, parsed, trust, wanted)
        environment = published.for_platform(found, wanted)
        if check:
            check(environment)
        diff_ids = tuple(layer.diff_id for layer in environment.layers)
        if dry_run:
            todo = plan(environment.layers, store.present(diff_ids))
            yield Pulled(str(found.reference), environment, todo, 0)
            return
        documents = (found.descriptor, *environment.documents)
        keeps = (*diff_ids, *(document.digest for document in documents))
        with leases.lease(store, keeps, f"pull {parsed}"):
            # Only layers seen after the lease was made are sure to stay.
            todo = plan(environment.layers, store.present(diff_ids))
            moved = 0
            _log(todo)
            if todo.fetch:
                from lamella.layers.pulling.fetch import fetch

                _check_room(store, todo)
                moved = fetch(todo.fetch, named, store, progress or Silent(), environment.prefix)
            names.add(store, found.descriptor.digest, _name(parsed), resolved=not parsed.digest)
            # A command may now run for days: no connection waits for its end.
            source.close()
            yield Pulled(str(found.reference), environment, todo, moved, keeps)
    finally:
        source.close()


def _name(reference: Reference) -> str:
    """The reference without its digest; a folder by its absolute path."""
    return str(replace(reference.absolute(), digest=None))


def _log(todo: PullPlan) -> None:
    """Record each layer to fetch, and the number of those in the store."""
    if not logs.listened("lamella.layers.pulling"):
        return
    logs.record(
        "lamella.layers.pulling",
        f"{counted(len(todo.present), 'layer')} in the store, {len(todo.fetch)} to fetch",
        present=len(todo.present),
        fetch=len(todo.fetch),
    )
    for layer in todo.fetch:
        package = PublishedPackage.of(layer)
        name = f"{package.name} {package.version}".strip()
        logs.record(
            "lamella.layers.pulling",
            f"fetch {name}: not in the store, {size(layer.descriptor.size)}",
            package=name,
            digest=str(layer.descriptor.digest),
            size=layer.descriptor.size,
        )


def _check_room(store: Store, todo: PullPlan) -> None:
    with store.explained():
        disk = os.statvfs(store.path)
    room = disk.f_bavail * disk.f_frsize
    if todo.unpacked > room:
        raise NoSpace(
            f"{store.path}: {size(room)} free, the environment needs {size(todo.unpacked)}; free space with lamella gc, "
            "or set LAMELLA_STORE to another disk",
            todo.unpacked - room,
        )


def _unpacked(layer: Layer) -> int:
    announced = bounded_decimal(layer.descriptor.annotations.get(UNPACKED))
    return layer.descriptor.size if announced is None else announced
