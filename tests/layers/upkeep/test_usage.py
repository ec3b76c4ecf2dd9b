"""The environments of a store, and the bytes that they and everything else take."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Digest
from lamella.layers.pulling.pull import leased, pull
from lamella.layers.store import leases, names
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.usage import disk_usage, stored_environments
from support import tars
from support.published import ARM64, publish, publish_layers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


@pytest.fixture
def place(tmp_path: Path) -> str:
    """A layout whose tags v1 (a, b) and v2 (b, c) share a layer."""
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    made = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 5000}), package=name) for name in "abc"]
    publish_layers(storage, "v1", made[:2])
    publish_layers(storage, "v2", made[1:])
    return f"oci:{tmp_path}/layout"


def test_each_environment_has_the_bytes_of_its_layers_alone_and_shared(store: Store, place: str) -> None:
    for tag in ("v1", "v2"):
        pull(f"{place}:{tag}", store=store)
    found = {each.names: each for each in stored_environments(store)}
    assert set(found) == {(f"{place}:v1",), (f"{place}:v2",)}
    one, two = found.values()
    assert one.shared == two.shared > 0
    assert one.alone + one.shared == one.bytes == sum(store.size(layer.diff_id) for layer in one.environment.layers)
    gone = found[f"{place}:v1",].environment.layers[0].diff_id
    shutil.rmtree(store.folder(gone))
    assert {each.names: each.missing for each in stored_environments(store)} == {
        (f"{place}:v1",): 1,
        (f"{place}:v2",): 0,
    }


def test_the_latest_used_environment_is_first(store: Store, place: str) -> None:
    for tag in ("v1", "v2"):
        pull(f"{place}:{tag}", store=store)
    for each in stored_environments(store):
        days = 1 if each.names == (f"{place}:v1",) else 2
        for document in each.environment.documents:
            os.utime(f"{store.path}/documents/sha256/{document.digest.hex}", (days * 86400, days * 86400))
    assert [each.used for each in stored_environments(store)] == [2 * 86400, 86400]
    assert [each.used for each in stored_environments(store)] == [2 * 86400, 86400], "a listing does not count as a use"


def test_running_commands_and_mounts_are_named(store: Store, place: str) -> None:
    keeps = pull(f"{place}:v1", store=store).keeps
    leases.hold(store, "other", keeps)
    with leased(f"{place}:v1", store=store):
        (found,) = stored_environments(store)
    hold, lease = found.users
    assert hold == "other"
    assert lease.startswith(f"pull {place}:v1 (process {os.getpid()} of ")
    leases.release(store, "other")
    assert stored_environments(store)[0].users == ()


def test_a_tag_names_the_index_that_it_was_last_resolved_to(store: Store, tmp_path: Path) -> None:
    first = publish(tmp_path / "layout", [{"a": "1"}], tag="v1")
    pull(f"oci:{tmp_path}/layout:v1", store=store)
    second = publish(tmp_path / "layout", [{"a": "2"}], tag="v1")
    pull(f"oci:{tmp_path}/layout:v1", store=store)
    listed = {str(each.digest): each.names for each in stored_environments(store)}
    assert listed == {first.partition("@")[2]: (), second.partition("@")[2]: (f"oci:{tmp_path}/layout:v1",)}
    # A pinned reference does not show which index the tag names now.
    pull(first, store=store)
    assert {each.names for each in stored_environments(store)} == {(f"oci:{tmp_path}/layout:v1",)}


def test_names_go_with_their_environment(store: Store, place: str) -> None:
    pull(f"{place}:v1", store=store)
    assert len(os.listdir(f"{store.path}/names/sha256")) == 1
    gc(store, keep_bytes=0)
    assert os.listdir(f"{store.path}/names/sha256") == []


def test_a_name_with_a_line_break_is_not_kept(store: Store) -> None:
    store.prepare()
    names.add(store, Digest.of(b"index"), "one\ntwo", resolved=True)
    assert names.of(store, Digest.of(b"index")) == []


def test_another_platform_s_environment_is_listed_as_such(store: Store, tmp_path: Path) -> None:
    pull(publish(tmp_path / "layout", [{"a": "1"}], platform=ARM64), store=store, platform=ARM64)
    assert [str(each.environment.platform) for each in stored_environments(store)] == ["linux/arm64"]


def test_documents_that_are_damaged_or_gone_end_no_listing(store: Store, place: str) -> None:
    for tag in ("v1", "v2"):
        pull(f"{place}:{tag}", store=store)
    first, second = stored_environments(store)
    path = f"{store.path}/documents/sha256/"
    with open(path + first.environment.descriptor.digest.hex, "wb") as file:
        file.write(b"{")
    assert [each.digest for each in stored_environments(store)] == [second.digest]
    os.unlink(path + second.environment.descriptor.digest.hex)
    assert stored_environments(store) == ()


def test_every_byte_of_a_store_is_of_one_kind(store: Store, place: str) -> None:
    pull(f"{place}:v1", store=store)
    with leased(f"{place}:v2", store=store) as held:
        os.makedirs(f"{store.path}/partial/trash-1")
        with open(f"{store.path}/partial/trash-1/left", "wb") as file:
            file.write(b"x" * 777)
        usage = disk_usage(store)
        kept = sum(store.size(layer.diff_id) for layer in held.environment.layers)
    assert usage.layers == 3
    assert usage.layer_bytes == sum(map(store.size, store.layers()))
    assert usage.unfinished_bytes == 777
    assert usage.kept_bytes > kept
    assert usage.reclaimable + usage.kept_bytes + 777 == usage.bytes
    assert usage.nameless_bytes == usage.unused == 0
    assert 0 < usage.free <= usage.capacity


def test_gc_frees_the_bytes_that_were_announced(store: Store, place: str) -> None:
    pull(f"{place}:v1", store=store)
    shutil.rmtree(f"{store.path}/documents/sha256")
    usage = disk_usage(store)
    assert usage.nameless_bytes == usage.layer_bytes
    assert gc(store, keep_bytes=0).bytes == usage.reclaimable
    assert disk_usage(store).bytes == 0


def test_a_store_that_does_not_exist_is_empty_and_stays_missing(store: Store) -> None:
    assert stored_environments(store) == ()
    assert disk_usage(store).bytes == 0
    assert not os.path.exists(store.path)
