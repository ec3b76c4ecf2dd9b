from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.fetch import fetch
from lamella.layers.gc import Freed, Item, gc, plan
from lamella.layers.layout import OciLayout
from lamella.layers.oci import Digest
from lamella.layers.progress import Silent
from lamella.layers.pull import pull
from lamella.layers.store import Store
from support import tars

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
ITEMS = st.lists(
    st.builds(
        Item,
        path=st.uuids().map(str),
        diff_id=st.none(),
        bytes=st.integers(0, 1000),
        used=st.integers(0, 100).map(float),
        kept=st.booleans(),
    ),
    max_size=20,
)
LIMIT = st.none() | st.integers(0, 5000)


def item(name: str, size: int, used: float, *, kept: bool = False) -> Item:
    return Item(name, Digest.of(name.encode()), size, used, kept)


class TestPlan:
    def test_frees_nothing_without_a_limit(self) -> None:
        assert plan([item("a", 10, 0)], keep_bytes=None, older_than=None, now=1e9) == ()

    def test_frees_the_least_recently_used_until_the_rest_fits(self) -> None:
        items = [item("new", 10, 3), item("old", 10, 1), item("middle", 10, 2)]
        assert [freed.path for freed in plan(items, keep_bytes=15, older_than=None, now=4)] == ["old", "middle"]

    def test_frees_what_was_not_used_for_longer(self) -> None:
        items = [item("new", 10, 9 * DAY), item("old", 10, 1 * DAY)]
        assert [freed.path for freed in plan(items, keep_bytes=None, older_than=5 * DAY, now=10 * DAY)] == ["old"]

    def test_what_is_kept_counts_and_stays(self) -> None:
        items = [item("mounted", 100, 1, kept=True), item("free", 1, 2)]
        assert [freed.path for freed in plan(items, keep_bytes=100, older_than=0, now=4)] == ["free"]

    @given(ITEMS, LIMIT, LIMIT)
    def test_holds_its_limits_and_what_is_kept(self, items: list[Item], keep: int | None, age: int | None) -> None:
        freed = plan(items, keep_bytes=keep, older_than=age, now=100)
        rest = [each for each in items if each not in freed]
        assert not any(each.kept for each in freed)
        if keep is not None:
            assert sum(each.bytes for each in rest) <= keep or all(each.kept for each in rest)
        if age is not None:
            assert all(each.kept or 100 - each.used <= age for each in rest)
        assert keep is not None or age is not None or not freed


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def layers(tmp_path: Path, store: Store) -> list[Digest]:
    """Three layers in the store, used in this order, a day apart."""
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    made = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 1000}), package=name) for name in "abc"]
    tars.publish(storage, "env", made)
    pull(f"oci:{tmp_path}/layout:env", store=store)
    diff_ids = [layer.diff_id for layer, _ in made]
    for days, diff_id in enumerate(diff_ids):
        os.utime(store.folder(diff_id), (1e9 + days * DAY, 1e9 + days * DAY))
    return diff_ids


def size(store: Store, diff_ids: list[Digest]) -> int:
    return sum(store.size(diff_id) for diff_id in diff_ids)


def test_frees_the_least_recently_used_layers(store: Store, layers: list[Digest]) -> None:
    documents = sum(
        os.path.getsize(os.path.join(here, name))
        for here, _, names in os.walk(f"{store.path}/documents")
        for name in names
    )
    freed = gc(store, keep_bytes=size(store, layers[1:]) + documents)
    assert freed.layers == (layers[0],)
    assert set(store.layers()) == set(layers[1:])
    assert os.listdir(f"{store.path}/partial") == []


def test_says_what_it_freed(store: Store, layers: list[Digest]) -> None:
    expected = Freed((layers[0], layers[1]), size(store, layers[:2]))
    os.utime(store.folder(layers[2]))
    assert gc(store, older_than=DAY) == expected


def test_a_dry_run_frees_nothing(store: Store, layers: list[Digest]) -> None:
    before = tars.snapshot(store.path)
    assert set(gc(store, keep_bytes=0, dry_run=True).layers) == set(layers)
    assert tars.snapshot(store.path) == before


def test_never_what_is_leased_or_held(store: Store, layers: list[Digest]) -> None:
    store.hold("mount", [layers[0]])
    with store.lease([layers[1]], "run"):
        assert gc(store, keep_bytes=0).layers == (layers[2],)
    assert gc(store, keep_bytes=0).layers == (layers[1],)
    store.release("mount")
    assert gc(store, keep_bytes=0).layers == (layers[0],)
    assert list(store.layers()) == []


def test_use_makes_a_layer_young(store: Store, layers: list[Digest]) -> None:
    store.touch([layers[0]])
    assert set(gc(store, older_than=DAY).layers) == set(layers[1:])


def test_a_layer_that_was_freed_is_pulled_again(store: Store, layers: list[Digest], tmp_path: Path) -> None:
    gc(store, keep_bytes=0)
    pulled = pull(f"oci:{tmp_path}/layout:env", store=store)
    assert {layer.diff_id for layer in pulled.plan.fetch} == set(layers)


def test_removes_what_crashes_left(store: Store, layers: list[Digest]) -> None:
    left = ["partial/trash-00", f"partial/{'0' * 64}-00", f"partial/{layers[0].hex}-00"]
    for name in left:
        os.makedirs(f"{store.path}/{name}/tree/opt/env")
    for name in ("partial/document-00", "holds/.00", f"locks/{'1' * 64}"):
        with open(f"{store.path}/{name}", "x", encoding="utf-8"):
            pass
    gc(store)
    assert {name: os.listdir(f"{store.path}/{name}") for name in ("partial", "holds", "locks")} == {
        "partial": [],
        "holds": [],
        "locks": [],
    }
    assert set(store.layers()) == set(layers)


def test_leaves_alone_what_another_process_has_in_hand(store: Store, layers: list[Digest]) -> None:
    busy = f"{store.path}/partial/{'0' * 64}-00"
    os.makedirs(busy)
    with open(f"{store.path}/locks/{'0' * 64}", "x", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        gc(store, keep_bytes=0)
        assert os.path.isdir(busy)


def test_a_store_that_was_never_made_has_nothing_to_free(store: Store) -> None:
    assert gc(store, keep_bytes=0) == Freed((), 0)
    assert not os.path.exists(store.path)


def test_one_layer_twice_in_a_fetch_is_no_deadlock(store: Store, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.tree({"opt/env/a": b"a"}))
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    tars.publish(storage, "env", [(layer, blob)])
    fetch([layer, layer], storage, store, Silent())
    assert list(store.layers()) == [layer.diff_id]
