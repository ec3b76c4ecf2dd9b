from __future__ import annotations

import os
from pathlib import Path

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_GZIP, Digest
from lamella.layers.pulling.pull import pull
from lamella.layers.store import derived, leases
from lamella.layers.store.store import Store
from lamella.layers.upkeep.verify import Damage, verify
from support import tars
from support.published import publish_layers


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def layer(tmp_path: Path, store: Store) -> Digest:
    """A layer with one of everything, in a store with another one."""
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    tar = (
        tars.folder(b"opt/env/")
        + tars.file(b"opt/env/data", os.urandom(100_000))
        + tars.file(b"opt/env/empty")
        + tars.hardlink(b"opt/env/hard", b"opt/env/data")
        + tars.symlink(b"opt/env/link", b"data")
        + tars.file(b"opt/env/program", b"#!/bin/sh", 0o755)
        + tars.END
        + bytes(8192)
    )
    made = tars.layer(tar, LAYER_GZIP)
    publish_layers(storage, "env", [made, tars.layer(tars.tree({"opt/env/other": b"other"}))])
    pull(f"oci:{tmp_path}/layout:env", store=store)
    return made[0].diff_id


def tree(store: Store, layer: Digest) -> Path:
    return Path(store.layer_path(layer), "opt/env")


def test_a_store_that_is_right(store: Store, layer: Digest) -> None:
    found = verify(store)
    assert found.layers == 2
    assert found.damaged == ()


def test_a_byte_that_was_changed(store: Store, layer: Digest) -> None:
    with open(tree(store, layer) / "data", "r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))
    (damage,) = verify(store).damaged
    assert damage.diff_id == layer
    assert damage.reason.startswith("its files were changed: they make sha256:")


def remake(path: Path, text: str) -> None:
    path.unlink()
    path.write_text(text)
    path.chmod(0o644)


CHANGES = {
    "a file that was cut": (
        lambda opt: os.truncate(opt / "data", 5),
        "'opt/env/data' is not the file that its tar has",
    ),
    "a file that is gone": (lambda opt: (opt / "empty").unlink(), "'opt/env/empty' is missing"),
    "a mode": (lambda opt: (opt / "program").chmod(0o644), "'opt/env/program' is not the file that its tar has"),
    "a setuid bit": (lambda opt: (opt / "program").chmod(0o4755), "'opt/env/program' is not the file that its tar has"),
    "a folder's mode": (lambda opt: opt.chmod(0o777), "'opt/env' is not the folder that its tar has"),
    "a link that leads elsewhere": (
        lambda opt: ((opt / "link").unlink(), (opt / "link").symlink_to("program")),
        "'opt/env/link' is not the symlink that its tar has",
    ),
    "a link for a file": (
        lambda opt: ((opt / "empty").unlink(), (opt / "empty").symlink_to("data")),
        "'opt/env/empty' is not the file that its tar has",
    ),
    "a hardlink that is a file of its own": (
        lambda opt: remake(opt / "hard", "x"),
        "'opt/env/hard' is not the hardlink that its tar has",
    ),
    "a file that was added": (lambda opt: (opt / "more").write_text("x"), "'opt/env/more' is not in its tar"),
    "a skeleton that is gone": (
        lambda opt: (opt.parents[2] / "skeleton").unlink(),
        "it can't be read: No such file or directory",
    ),
    "a skeleton that is damaged": (
        lambda opt: (opt.parents[2] / "skeleton").write_bytes(b"damaged"),
        "its skeleton is damaged",
    ),
}


@pytest.mark.parametrize(("change", "reason"), CHANGES.values(), ids=CHANGES)
def test_finds(store: Store, layer: Digest, change: object, reason: str) -> None:
    assert callable(change)
    change(tree(store, layer))
    (damage,) = verify(store).damaged
    assert damage.diff_id == layer
    assert damage.reason.startswith(reason)


def test_a_damaged_layer_is_removed_and_the_next_pull_restores_it(store: Store, layer: Digest, tmp_path: Path) -> None:
    right = tars.snapshot(store.layer_path(layer))
    (tree(store, layer) / "program").write_text("#!/bin/evil")
    assert [damage.removed for damage in verify(store).damaged] == [True]
    assert not store.has(layer)
    pulled = pull(f"oci:{tmp_path}/layout:env", store=store)
    assert [each.diff_id for each in pulled.plan.fetch] == [layer]
    assert tars.snapshot(store.layer_path(layer)) == right
    assert verify(store).damaged == ()


def test_a_damaged_mounted_layer_is_reported_and_stays(store: Store, layer: Digest) -> None:
    (tree(store, layer) / "program").chmod(0o644)
    leases.hold(store, "mount", [layer])
    (damage,) = verify(store).damaged
    assert damage == Damage(layer, "'opt/env/program' is not the file that its tar has", removed=False)
    assert store.has(layer)


def test_a_tree_made_of_a_damaged_layer_is_removed_with_it(store: Store, layer: Digest) -> None:
    made = derived.make(store, "merged", [layer], lambda tree: Path(tree, "file").write_text("copied"))
    (tree(store, layer) / "program").chmod(0o644)
    verify(store)
    assert not os.path.exists(made)


def test_a_tree_that_was_made_of_layers_is_looked_at_too(store: Store, layer: Digest) -> None:
    for change in ("content", "mode", "name"):
        made = Path(derived.make(store, change, [layer], lambda tree: Path(tree, "file").write_text("copied")))
        assert verify(store).damaged == ()
        if change == "content":
            (made / "file").write_text("copieD")
        elif change == "mode":
            (made / "file").chmod(0o755)
        else:
            (made / "file").rename(made / "other")
        (damage,) = verify(store).damaged
        assert damage == Damage(None, "its files were changed since it was made", removed=True, tree=str(made.parent))
        assert not made.exists()
    assert store.has(layer)


def test_a_damaged_mounted_tree_is_reported_and_stays(store: Store, layer: Digest) -> None:
    made = Path(derived.make(store, "merged", [layer], lambda tree: Path(tree, "file").write_text("copied")))
    (made / "file").unlink()
    leases.hold(store, "mount", [layer])
    (damage,) = verify(store).damaged
    assert not damage.removed
    assert made.exists()


def test_looks_only_at_the_layers_it_is_asked_for(store: Store, layer: Digest) -> None:
    (tree(store, layer) / "program").chmod(0o644)
    others = [diff_id for diff_id in store.layers() if diff_id != layer]
    assert verify(store, diff_ids=others).damaged == ()


def test_tells_without_removing(store: Store, layer: Digest) -> None:
    (tree(store, layer) / "program").chmod(0o644)
    assert [damage.removed for damage in verify(store, remove=False).damaged] == [False]
    assert store.has(layer)


def test_a_store_that_was_never_made(store: Store) -> None:
    assert verify(store).layers == 0
    assert not os.path.exists(store.path)
