from __future__ import annotations

import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.content.entry import Entry
from lamella.builder.content.write_layer import write_layer
from lamella.builder.errors import CacheError
from lamella.builder.layer.bundle import merge, partition
from lamella.layers.oci.documents import LAYER_ZSTD

if TYPE_CHECKING:
    from pathlib import Path

SIZES = st.dictionaries(st.text("abcdefgh", min_size=1, max_size=4), st.integers(0, 1000), max_size=40)


@given(SIZES, st.integers(1, 30))
@pytest.mark.slow
def test_every_package_is_in_one_layer_of_at_most_so_many(sizes: dict[str, int], most: int) -> None:
    alone, bundles = partition(list(sizes.items()), most)
    assert sorted([*alone, *(name for bundle in bundles for name in bundle)]) == sorted(sizes)
    assert len(alone) + len(bundles) <= most
    assert all(bundles)


@given(SIZES, st.integers(1, 30), st.randoms())
@pytest.mark.slow
def test_the_order_of_packages_does_not_show(sizes: dict[str, int], most: int, random: object) -> None:
    items = list(sizes.items())
    random.shuffle(items)  # type: ignore[attr-defined] # hypothesis gives a Random
    assert partition(items, most) == partition(list(sizes.items()), most)


def test_few_packages_need_no_bundle() -> None:
    assert partition([("b", 1), ("a", 2)], 2) == (["a", "b"], [])


def test_a_package_that_comes_or_grows_changes_one_bundle() -> None:
    sizes = [(f"package-{number}", 1000 - number) for number in range(228)]
    alone, bundles = partition(sizes, 100)
    assert (len(alone), len(bundles)) == (84, 16)
    assert partition([*sizes[:-1], ("package-227", 900 - 150)], 100)[1] == bundles
    more = partition([*sizes, ("one-more", 1)], 100)
    assert more[0] == alone
    assert len([bundle for bundle in more[1] if bundle not in bundles]) == 1


def layer(*paths: str) -> bytes:
    out = io.BytesIO()
    entries = [
        Entry(path, 0o644, len(path), hashlib.sha256(path.encode()).hexdigest(), path.encode()) for path in paths
    ]
    write_layer(entries, (), None, out, "zstd")
    return out.getvalue()


def merged(scratch: Path, *layers: bytes) -> bytes:
    out = io.BytesIO()
    merge([(io.BytesIO(one), LAYER_ZSTD) for one in layers], out, "zstd", scratch=str(scratch))
    return out.getvalue()


def test_a_bundle_is_the_layer_that_one_package_with_all_the_files_would_be(tmp_path: Path) -> None:
    paths = ("opt/env/a/1", "opt/env/a-b", "opt/env/b/" + "x" * 200, "opt/env/a/0", "opt/env/a.py")
    whole = layer(*paths)
    assert merged(tmp_path, layer(*paths[:2]), layer(*paths[2:])) == whole
    assert merged(tmp_path, layer(paths[4]), layer(*paths[:4])) == whole
    with tarfile.open(fileobj=io.BytesIO(zstandard.ZstdDecompressor().stream_reader(whole).read())) as tar:
        assert len(set(tar.getnames())) == len(tar.getnames())
    assert list(tmp_path.iterdir()) == []


def test_one_path_in_two_members_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="opt/env/a: in two packages"):
        merged(tmp_path, layer("opt/env/a"), layer("opt/env/a"))


def test_a_damaged_member_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"a layer in the cache is damaged: .*; push again"):
        merged(tmp_path, layer("opt/env/a")[:-5])
