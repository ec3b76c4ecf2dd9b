from __future__ import annotations

import fcntl
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Digest
from lamella.layers.progress.display import Silent
from lamella.layers.pulling.fetch import fetch
from lamella.layers.pulling.pull import leased, pull
from lamella.layers.store import derived, leases
from lamella.layers.store.locks import user
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import Candidate, Freed, gc, plan
from support import tars
from support.published import publish_layers

if TYPE_CHECKING:
    from pathlib import Path

DAY = 86400.0
ITEMS = st.lists(
    st.builds(
        Candidate,
        path=st.uuids().map(str),
        diff_id=st.none(),
        bytes=st.integers(0, 1000),
        used=st.integers(0, 100).map(float),
        kept=st.booleans(),
    ),
    max_size=20,
)
LIMIT = st.none() | st.integers(0, 5000)


def item(name: str, size: int, used: float, *, kept: bool = False) -> Candidate:
    return Candidate(name, Digest.of(name.encode()), size, used, kept)


class TestPlan:
    def test_frees_nothing_without_a_limit(self) -> None:
        assert plan([item("a", 10, 0)], keep_bytes=None, older_than=None, now=1e9) == ()

    def test_frees_the_least_recently_used_until_the_rest_fits(self) -> None:
        items = [item("new", 10, 3), item("old", 10, 1), item("middle", 10, 2)]
        assert [freed.path for freed in plan(items, keep_bytes=15, older_than=None, now=4)] == ["old", "middle"]

    def test_frees_items_unused_for_longer(self) -> None:
        items = [item("new", 10, 9 * DAY), item("old", 10, 1 * DAY)]
        assert [freed.path for freed in plan(items, keep_bytes=None, older_than=5 * DAY, now=10 * DAY)] == ["old"]

    def test_keeps_an_item_of_exactly_the_age_limit(self) -> None:
        assert plan([item("a", 10, 5 * DAY)], keep_bytes=None, older_than=5 * DAY, now=10 * DAY) == ()

    def test_kept_items_count_and_stay(self) -> None:
        items = [item("mounted", 100, 1, kept=True), item("free", 1, 2)]
        assert [freed.path for freed in plan(items, keep_bytes=100, older_than=0, now=4)] == ["free"]

    @pytest.mark.slow
    @given(ITEMS, LIMIT, LIMIT)
    def test_holds_its_limits_and_kept_items(self, items: list[Candidate], keep: int | None, age: int | None) -> None:
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
    """Three layers in the store, used in this order, a day apart, and no document any more that would say more."""
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    made = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 1000}), package=name) for name in "abc"]
    publish_layers(storage, "env", made)
    pull(f"oci:{tmp_path}/layout:env", store=store)
    shutil.rmtree(f"{store.path}/documents/sha256")
    diff_ids = [layer.diff_id for layer, _ in made]
    for days, diff_id in enumerate(diff_ids):
        os.utime(store.folder(diff_id), (1e9 + days * DAY, 1e9 + days * DAY))
    return diff_ids


def size(store: Store, diff_ids: list[Digest]) -> int:
    return sum(store.size(diff_id) for diff_id in diff_ids)


def test_frees_the_least_recently_used_layers(store: Store, layers: list[Digest]) -> None:
    freed = gc(store, keep_bytes=size(store, layers[1:]))
    assert freed.layers == (layers[0],)
    assert set(store.layers()) == set(layers[1:])
    assert os.listdir(f"{store.path}/partial") == []


def test_frees_only_layers_among_those_that_are_given(store: Store, layers: list[Digest]) -> None:
    assert gc(store, keep_bytes=0, among=layers[:1], dry_run=True).layers == (layers[0],)
    assert gc(store, keep_bytes=0, among=layers[:1]).layers == (layers[0],)
    assert set(store.layers()) == set(layers[1:])


def test_says_what_it_freed(store: Store, layers: list[Digest]) -> None:
    expected = Freed((layers[0], layers[1]), size(store, layers[:2]))
    os.utime(store.folder(layers[2]))
    assert gc(store, older_than=DAY) == expected


def test_a_dry_run_frees_nothing(store: Store, layers: list[Digest]) -> None:
    before = tars.snapshot(store.path)
    assert set(gc(store, keep_bytes=0, dry_run=True).layers) == set(layers)
    assert tars.snapshot(store.path) == before


def test_never_frees_leased_or_held_layers(store: Store, layers: list[Digest]) -> None:
    leases.hold(store, "mount", [layers[0]])
    with leases.lease(store, [layers[1]], "run"):
        assert gc(store, keep_bytes=0).layers == (layers[2],)
    assert gc(store, keep_bytes=0).layers == (layers[1],)
    leases.release(store, "mount")
    assert gc(store, keep_bytes=0).layers == (layers[0],)
    assert list(store.layers()) == []


def test_use_makes_an_environments_layers_young(store: Store, layers: list[Digest], tmp_path: Path) -> None:
    pull(f"oci:{tmp_path}/layout:env", store=store)
    assert gc(store, older_than=DAY).layers == ()


def test_the_time_of_use_outlives_the_documents_that_recorded_it(
    store: Store, layers: list[Digest], tmp_path: Path
) -> None:
    pull(f"oci:{tmp_path}/layout:env", store=store)
    for here, _, names in os.walk(f"{store.path}/documents"):
        for name in names:
            os.utime(os.path.join(here, name), (2e9, 2e9))

    gc(store, keep_bytes=size(store, layers))

    assert os.listdir(f"{store.path}/documents/sha256") == []
    assert {os.stat(store.folder(diff_id)).st_mtime for diff_id in layers} == {2e9}


def test_documents_of_leased_or_held_layers_stay_so_that_they_need_no_request(
    store: Store, layers: list[Digest], tmp_path: Path
) -> None:
    reference = f"oci:{tmp_path}/layout:env"
    with leased(reference, store=store) as pulled:
        assert gc(store, keep_bytes=0) == Freed(
            (), 0, (f"pull {reference} (process {os.getpid()} of {user(os.getuid())})",)
        )
    leases.hold(store, "mount", pulled.keeps)
    assert gc(store, keep_bytes=0) == Freed((), 0, ("mount",))
    (tmp_path / "layout").rename(tmp_path / "gone")
    assert pull(pulled.reference, store=store).moved == 0


def derive(store: Store, layers: list[Digest], used: float) -> str:
    """The folder of a tree of its own 5,000 bytes and a file that it shares."""

    def build(tree: str) -> None:
        with open(f"{tree}/own", "xb") as own:
            own.write(bytes(5000))
        os.link(f"{store.layer_path(layers[0])}/opt/env/a", f"{tree}/shared")

    folder = os.path.dirname(derived.make(store, "merged", layers, build))
    os.utime(folder, (used, used))
    return folder


def test_derived_trees_count_and_go_by_age_and_size(store: Store, layers: list[Digest]) -> None:
    used = 1e9 - DAY
    derive(store, layers, used)
    assert gc(store, keep_bytes=size(store, layers), dry_run=True) == Freed((), 5000)
    assert gc(store, keep_bytes=size(store, layers) + 4999) == Freed((), 5000)
    assert derived.trees(store) == []
    leases.hold(store, "mount", layers)
    folder = derive(store, layers[:2], used)
    assert gc(store, older_than=DAY) == Freed((), 0, ("mount",))
    leases.release(store, "mount")
    for diff_id in layers:
        os.utime(store.folder(diff_id))
    assert gc(store, older_than=DAY) == Freed((), 5000)
    assert not os.path.exists(folder)


def test_use_makes_a_derived_tree_young(store: Store, layers: list[Digest]) -> None:
    folder = derive(store, layers, 1e9)
    for diff_id in layers:
        os.utime(store.folder(diff_id))
    derived.make(store, "merged", layers, lambda _: None)
    assert gc(store, older_than=DAY) == Freed((), 0)
    assert os.path.isdir(folder)


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


def test_one_layer_twice_in_a_fetch_does_not_deadlock(store: Store, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.tree({"opt/env/a": b"a"}))
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    publish_layers(storage, "env", [(layer, blob)])
    fetch([layer, layer], storage, store, Silent())
    assert list(store.layers()) == [layer.diff_id]
