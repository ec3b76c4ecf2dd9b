"""Differences between two environments."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.difference import ComparedPackage, compression_of, difference, published, scanned
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.layout import OciLayout
from lamella.layers.oci.reference import Reference
from lamella.layers.published.environment import read_index
from lamella.layers.settings.trust import Trust
from support.packages import environment, package

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.content.blob import Compression

COMPRESSIONS: tuple[Compression, ...] = ("zstd", "gzip")

ITEMS = st.builds(
    ComparedPackage,
    name=st.sampled_from("abcd"),
    origin=st.sampled_from(["pypi", "conda"]),
    version=st.sampled_from(["1", "2"]),
    key=st.sampled_from(["k1", "k2", "k3"]),
    size=st.integers(0, 1000),
)
SIDES = st.lists(ITEMS, unique_by=lambda item: (item.name, item.origin))


def item(name: str, version: str = "1", key: str = "", size: int = 10) -> ComparedPackage:
    return ComparedPackage(name, "pypi", version, key or f"{name}-{version}", size)


def test_packages_are_added_removed_changed_or_the_same() -> None:
    found = difference([item("a"), item("b"), item("c")], [item("b", "2", size=7), item("c"), item("d", size=5)])
    assert found.added == (item("d", size=5),)
    assert found.removed == (item("a"),)
    assert found.changed == ((item("b"), item("b", "2", size=7)),)
    assert found.same == 1
    assert found.moves == 12


def test_one_version_with_other_content_is_a_change() -> None:
    found = difference([item("a", key="one")], [item("a", key="two")])
    assert len(found.changed) == 1


def test_unpacked_bytes_are_compared_before_keys() -> None:
    """A key holds the compression as well, and may stand for the byte code of another patch release."""
    one = item("a", key="zstd")
    assert difference([replace(one, diff_id="x")], [replace(one, key="gzip", diff_id="x")]).same == 1
    assert difference([replace(one, diff_id="x")], [replace(one, diff_id="y")]).same == 0
    assert difference([replace(one, diff_id="x")], [one]).same == 1, "an environment on this disk has only keys"


def test_two_compressions_of_one_content_do_not_differ(tmp_path: Path) -> None:
    env = environment(tmp_path / "env", package(tmp_path / "env", "p", {"share/p": "x" * 1000}))
    cache = LayerCache(str(tmp_path / "cache"))
    sides = []
    for compression in COMPRESSIONS:
        reference = Reference.parse(f"oci:{tmp_path}/layout:{compression}")
        push(str(reference), env, PushOptions(compression=compression), cache=cache)
        (found,) = read_index(OciLayout(reference.folder), reference, Trust()).environments
        assert compression_of(found) == compression
        sides.append(published(found))
        on_disk = scanned(env, image_prefix=found.prefix, compression=compression_of(found))
        assert difference(on_disk, sides[-1]).same == 1
    assert difference(*sides).same == 1


@given(SIDES, SIDES)
@pytest.mark.slow
def test_every_package_is_counted_once_and_the_order_means_nothing(
    before: list[ComparedPackage], after: list[ComparedPackage]
) -> None:
    found = difference(before, after)
    assert len(found.added) + len(found.changed) + found.same == len(after)
    assert len(found.removed) + len(found.changed) + found.same == len(before)
    assert found == difference(before[::-1], after[::-1])


@pytest.mark.slow
@given(SIDES)
def test_an_environment_does_not_differ_from_itself(side: list[ComparedPackage]) -> None:
    found = difference(side, side)
    assert (found.added, found.removed, found.changed, found.moves) == ((), (), (), 0)
