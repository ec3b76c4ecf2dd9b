from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from lamella.layers.mounting.lowerdirs import folders, merged, smallest
from lamella.layers.mounting.whole_tree import linked
from lamella.layers.oci.documents import Digest
from lamella.layers.pulling.pull import pull
from lamella.layers.store import derived
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from support.published import publish
from support.trees import content


def digests(count: int) -> list[Digest]:
    return [Digest.of(str(number).encode()) for number in range(count)]


def build(target: str) -> None:
    (Path(target) / "file").write_text("made")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def test_a_tree_is_made_once_by_many_who_want_it_at_once(store: Store) -> None:
    made = []

    def count(target: str) -> None:
        made.append(target)
        build(target)

    paths: list[str] = []
    threads = [
        threading.Thread(target=lambda: paths.append(derived.make(store, "merged", digests(2), count)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(made) == 1
    assert len(set(paths)) == 1
    assert content(Path(paths[0])) == {"file": "made"}


def test_a_build_that_fails_leaves_nothing(store: Store, tmp_path: Path) -> None:
    def fail(target: str) -> None:
        build(target)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        derived.make(store, "merged", digests(2), fail)

    assert not any(path.is_file() for path in tmp_path.rglob("*") if path.name != "lock")


def test_a_tree_is_for_everybody_whatever_the_umask(store: Store) -> None:
    before = os.umask(0o077)
    try:
        tree = Path(derived.make(store, "merged", digests(2), lambda _: None))
    finally:
        os.umask(before)

    assert [stat.S_IMODE(path.stat().st_mode) for path in (tree, tree.parent, tree.parent.parent)] == [0o755] * 3


def test_trees_of_other_kinds_or_layers_are_other_trees(store: Store) -> None:
    paths = {
        derived.make(store, kind, layers, build) for kind in ("merged", "links") for layers in (digests(1), digests(2))
    }

    assert len(paths) == 4


def test_a_tree_goes_with_any_of_its_layers(store: Store) -> None:
    first, second, third = digests(3)
    path = derived.make(store, "merged", [first, second], build)

    assert derived.made_of(store, [third]) == []
    assert derived.made_of(store, [third, second]) == [str(Path(path).parent)]


def test_gc_frees_trees_with_the_layers_that_they_are_made_of(store: Store, tmp_path: Path) -> None:
    pulled = pull(publish(tmp_path / "layout", [{"a": "1"}, {"b": "2"}]), store=store)
    tree = linked(store, pulled.environment)
    assert content(Path(tree)) == {"a": "1", "b": "2"}

    gc(store, keep_bytes=0)

    assert not Path(tree).exists()


def test_the_smallest_layers_are_merged_and_the_others_left_alone() -> None:
    layers = digests(5)
    sizes = dict(zip(layers, (50, 10, 40, 20, 30), strict=True))

    assert smallest(sizes, 3) == (layers[1], layers[3], layers[4])
    assert smallest(sizes, 5) == ()


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_merged_layers_hold_what_they_held_apart(store: Store, tmp_path: Path, limit: int) -> None:
    environment = pull(
        publish(tmp_path / "layout", [{f"lib/{number}": str(number)} for number in range(4)]), store=store
    ).environment

    parts = merged(store, environment, folders(store, environment), limit=limit)

    assert len(parts) == limit
    shown = {path: text for part in parts for path, text in content(Path(part)).items()}
    assert shown == {f"lib/{number}": str(number) for number in range(4)}
