"""Freeing the cache of built layers."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from lamella.builder.content.blob import LayerBlob
from lamella.builder.layer.cache import RECENT, BuiltLayer, LayerCache
from lamella.builder.layer.prune import cache_usage, prune_cache
from lamella.builder.resolving.file_lock import exclusive
from lamella.layers.oci.documents import LAYER_ZSTD, Digest


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(str(tmp_path))


def add(cache: LayerCache, key: str, content: bytes, *, age: float) -> BuiltLayer:
    """A built layer that was last used `age` seconds ago."""

    def write(out: BinaryIO) -> LayerBlob:
        out.write(content)
        return LayerBlob(Digest.of(content), len(content), Digest.of(content), len(content))

    built = cache.add(key, LAYER_ZSTD, write)
    path = cache.blob_path(built)
    assert path
    os.utime(path, (time.time() - age,) * 2)
    return built


def test_the_least_recently_used_go_first_until_it_fits(cache: LayerCache) -> None:
    old, older = add(cache, "a" * 64, b"a" * 1000, age=7200), add(cache, "b" * 64, b"b" * 1000, age=9000)
    freed = prune_cache(cache, keep_bytes=1800)
    assert freed.blobs == 1
    assert cache.blob_path(older) is None
    assert cache.blob_path(old)


def test_a_layer_used_within_the_hour_stays_and_is_counted(cache: LayerCache) -> None:
    """A running push has planned with it."""
    built = add(cache, "a" * 64, b"a", age=RECENT + 60)
    assert cache.blob_path(built), "looking is using"
    assert prune_cache(cache, keep_bytes=0) == (0, 0, 1)
    assert cache.find("a" * 64) == built
    assert cache.blob_path(built)


def test_a_dry_run_changes_nothing(cache: LayerCache) -> None:
    built = add(cache, "a" * 64, b"a" * 10, age=9000)
    assert prune_cache(cache, older_than=8000, dry_run=True) == (1, 10, 0)
    assert cache.blob_path(built)


def test_a_cache_that_is_not_there_frees_nothing(tmp_path: Path) -> None:
    assert prune_cache(LayerCache(str(tmp_path / "none")), keep_bytes=0) == (0, 0, 0)


def test_a_freed_layer_is_built_again(cache: LayerCache) -> None:
    built = add(cache, "a" * 64, b"a" * 10, age=9000)
    prune_cache(cache, keep_bytes=0)
    assert cache.blob_path(built) is None
    assert cache.blob_path(add(cache, "a" * 64, b"a" * 10, age=0))


def test_the_usage_counts_what_a_prune_frees(cache: LayerCache) -> None:
    add(cache, "a" * 64, b"a" * 1000, age=9000)
    add(cache, "b" * 64, b"b" * 300, age=0)
    usage = cache_usage(cache)
    assert (usage.blobs, usage.blob_bytes, usage.recent_bytes, usage.unused) == (2, 1300, 300, 0)
    assert usage.record_bytes > 0
    freed = prune_cache(cache, keep_bytes=0)
    assert usage.reclaimable == freed.bytes == 1000
    assert cache_usage(cache).reclaimable == 0


def test_a_store_below_the_cache_is_not_counted_as_its_own(cache: LayerCache) -> None:
    before = cache_usage(cache).other_bytes
    folder = Path(cache.path).parent
    (folder / "store" / "leases").mkdir(parents=True)
    (folder / "store" / "content").write_text("x" * 1000)
    (folder / "hashes.sqlite").write_text("x" * 10)
    assert cache_usage(cache).other_bytes == before + 10


def test_the_usage_of_a_cache_that_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert cache_usage(LayerCache(str(tmp_path / "cache"))).bytes == 0


def target(cache: LayerCache, name: str, *, age: float) -> Path:
    """A prefix for another platform that was last used `age` seconds ago."""
    folder = Path(cache.path).parent / "targets" / name
    (folder / "prefix" / "lib").mkdir(parents=True)
    (folder / "prefix" / "lib" / "module.py").write_text("x" * 1000)
    (folder / "state.json").write_text("{}")
    os.utime(folder / "state.json", (time.time() - age,) * 2)
    return folder


def test_a_prefix_for_another_platform_is_freed_whole(cache: LayerCache) -> None:
    old, new = target(cache, "old", age=9000), target(cache, "new", age=0)
    assert cache_usage(cache).reclaimable == 1002
    assert prune_cache(cache, older_than=8000).bytes == 1002
    assert (old.exists(), new.exists()) == (False, True)
    assert list(old.parent.iterdir()) == [new]


def test_a_prefix_that_a_push_holds_stays(cache: LayerCache) -> None:
    folder = target(cache, "held", age=9000)
    with exclusive(f"{folder}.lock"):
        prune_cache(cache, keep_bytes=0)
        assert (folder / "state.json").exists()
    prune_cache(cache, keep_bytes=0)
    assert not folder.exists()
