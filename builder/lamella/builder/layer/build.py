"""Build the layers of a plan into the cache, several at once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from lamella.builder.content.blob import MEDIA_TYPE, Processors
from lamella.builder.content.write_layer import write_layer
from lamella.builder.layer.bundle import merge
from lamella.builder.layer.cache import Learned
from lamella.layers.oci.documents import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from lamella.builder.content.blob import Compression, LayerBlob
    from lamella.builder.content.bytecode import Compiler
    from lamella.builder.environment import Package
    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.builder.layer.layer_set import PlannedPackage, Shipped
    from lamella.builder.layer.plan import WantedLayer
    from lamella.layers.oci.storage import Reader, Storage
    from lamella.layers.progress.display import Progress

_Item = TypeVar("_Item")
_THREADS = 8
"""Maximum number. Each holds up to 8 MB; more would wait for the interpreter's lock."""


@dataclass(frozen=True, slots=True)
class BuildTools:
    """Everything that building layers takes beside the plan."""

    ship: Callable[[Package], Shipped]
    """Returns the content of a package's layer."""
    cache: LayerCache
    compiler: Compiler
    compression: Compression
    storage: Storage
    """Has the blobs of bundles' members that the cache lacks."""
    progress: Progress
    settled: bool = False
    """Whether a file with the scan's times has the scan's bytes."""


def build(
    contents: Sequence[PlannedPackage],
    bundles: Sequence[WantedLayer],
    tools: BuildTools,
    *,
    known: Mapping[str, BuiltLayer],
    done: Callable[[str, BuiltLayer, bool], object],
) -> None:
    """Build `contents`, then `bundles`; call `done(key, built, new)` for each, from several threads.

    `new` is false for a layer that another process built meanwhile. `known` has the bundles' other members.
    The first error is raised, and nothing new begins after it.
    """
    cache, compression, progress = tools.cache, tools.compression, tools.progress
    task = "build"
    progress.begin(task, sum(item.wanted.size for item in contents) + sum(bundle.size for bundle in bundles), "B")
    built = dict(known)

    def package(item: PlannedPackage) -> None:
        wanted = item.wanted
        # Another process may have built it meanwhile. The plan has all learned layers already.
        found = cache.find(wanted.key)
        made = found if found and cache.blob_path(found) else None
        new = made is None
        if made is None:
            what = item.content or tools.ship(item.package)
            made = cache.add(
                wanted.key,
                MEDIA_TYPE[compression],
                lambda out: write_layer(
                    what.entries,
                    what.modules,
                    tools.compiler,
                    out,
                    compression,
                    processors=processors,
                    settled=tools.settled,
                ),
            )
        built[wanted.key] = made
        done(wanted.key, made, new)
        progress.advance(task, wanted.size)

    def bundle(wanted: WantedLayer) -> None:
        def write(out: BinaryIO) -> LayerBlob:
            members = _blobs(wanted, built, cache, tools.storage)
            return merge(members, out, compression, scratch=cache.scratch(), processors=processors)

        made = cache.add(wanted.key, MEDIA_TYPE[compression], write, _source([built[key] for key in wanted.members]))
        done(wanted.key, made, True)
        progress.advance(task, wanted.size)

    def occupying(make: Callable[[_Item], None], item: _Item) -> None:
        with processors.occupied():
            make(item)

    # Threads: reading, hashing and compressing release the interpreter's lock; other processes compile.
    count = min(_THREADS, os.cpu_count() or 1)
    with closing(Processors(count)) as processors, ThreadPoolExecutor(count, "lamella-build") as pool:
        # The longest first: one that starts last would leave the other processors idle.
        packages = sorted(contents, key=_work, reverse=True)
        _all(pool, [pool.submit(occupying, package, item) for item in packages])
        largest = sorted(bundles, key=lambda wanted: -wanted.size)
        _all(pool, [pool.submit(occupying, bundle, wanted) for wanted in largest])
    progress.end(task)


def _work(item: PlannedPackage) -> int:
    """Bytes to compress in the time that the package takes. A byte of source takes as long as 40, if it is compiled."""
    return item.wanted.size + 40 * sum(file.size for file in item.package.files if file.path.endswith(".py"))


def _source(members: Sequence[BuiltLayer]) -> Learned | None:
    """The source of a bundle: built here if all members were, else no better known than the least known of them."""
    learned = [member.learned for member in members if member.learned]
    if not learned:
        return None
    keys = {each.key for each in learned}
    return Learned(learned[0].place, keys.pop() if len(keys) == 1 else "")


def _all(pool: ThreadPoolExecutor, futures: Sequence[Future[None]]) -> None:
    try:
        for future in futures:
            future.result()
    except BaseException:
        pool.shutdown(wait=True, cancel_futures=True)
        raise


def _blobs(
    wanted: WantedLayer, built: Mapping[str, BuiltLayer], cache: LayerCache, storage: Storage
) -> Iterator[tuple[Reader, str]]:
    for key in wanted.members:
        member = built[key]
        path = cache.blob_path(member)
        if path is not None:
            with open(path, "rb") as stream:
                yield stream, member.media_type
            continue
        with storage.fetch(Descriptor(member.media_type, member.digest, member.size)) as fetched:
            yield fetched, member.media_type
