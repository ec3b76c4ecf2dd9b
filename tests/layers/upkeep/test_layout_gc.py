"""A layout folder loses the blobs that nothing names, and no other, whatever runs beside."""

from __future__ import annotations

import io
import os
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent, NotFound, StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.oci.referrers import Artifact, attach, referrers
from lamella.layers.upkeep.layout_gc import DAY, gc_layout
from support.published import blob, push_environment, push_image, push_index

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "layout"


def layout(folder: Path) -> OciLayout:
    return OciLayout(str(folder), create=True)


def blobs(folder: Path) -> set[str]:
    return set(os.listdir(folder / "blobs/sha256"))


def age(folder: Path, seconds: float = 2 * DAY) -> None:
    """Make every blob look that old."""
    for name in blobs(folder):
        path = folder / "blobs/sha256" / name
        at = path.stat().st_mtime - seconds
        os.utime(path, (at, at))


def test_the_blobs_of_a_removed_tag_go_unless_another_one_has_them(folder: Path) -> None:
    storage = layout(folder)
    push_environment(storage, "v1", packages=[b"one", b"both"])
    kept = blobs(folder)
    push_environment(storage, "v2", packages=[b"both", b"two"])
    age(folder)
    storage.remove_tag("v2")
    planned = gc_layout(str(folder), dry_run=True)
    assert blobs(folder) > kept
    freed = gc_layout(str(folder))
    assert freed == planned
    assert blobs(folder) == kept
    assert freed.bytes > 0
    assert gc_layout(str(folder)).digests == ()


def test_attachments_stay_with_their_subject_and_go_with_it(folder: Path) -> None:
    storage = layout(folder)
    index = push_environment(storage, "v1")
    attached = attach(storage, index.descriptor, Artifact("application/vnd.example", b"report"))
    attach(storage, attached, Artifact("application/vnd.signature", b"of the report"))
    age(folder)
    assert gc_layout(str(folder)).digests == ()
    assert [each.digest for each in referrers(storage, index.descriptor)] == [attached.digest]
    storage.remove_tag("v1")
    freed = gc_layout(str(folder))
    assert blobs(folder) == set()
    assert len(freed.tags) == 2
    assert storage.tags() == []


def test_entries_without_a_tag_and_indexes_in_indexes_keep_their_blobs(folder: Path) -> None:
    storage = layout(folder)
    inner = push_index(storage, [push_image(storage, [b"deep"]).descriptor])
    push_index(storage, [inner.descriptor], "nested")
    push_image(storage, [b"nameless"], "later")
    index = (folder / "index.json").read_text()
    (folder / "index.json").write_text(index.replace('"org.opencontainers.image.ref.name":"later"', '"other":"tool"'))
    age(folder)
    before = blobs(folder)
    assert gc_layout(str(folder)).digests == ()
    assert blobs(folder) == before


def test_young_blobs_may_belong_to_a_push_and_stay(folder: Path) -> None:
    storage = layout(folder)
    push_environment(storage, "v1")
    begun = blob(b"the first layer of another tool's push").pushed(storage)
    freed = gc_layout(str(folder))
    assert (freed.digests, freed.recent) == ((), 1)
    assert gc_layout(str(folder), older_than=0).digests == (begun.descriptor.digest,)


def test_a_push_that_relied_on_a_collected_blob_fails_and_succeeds_when_repeated(folder: Path) -> None:
    storage = layout(folder)
    push_environment(storage, "v1", packages=[b"shared"])
    storage.remove_tag("v1")
    age(folder)
    pushing = layout(folder)
    shared = blob(b"shared")
    assert pushing.exists(shared.descriptor), "so the push does not send it"
    gc_layout(str(folder))
    with pytest.raises(NotFound, match=r"sha256:\w+: removed from the layout .* by lamella gc; push again"):
        push_image(pushing, [], "v2")
    assert pushing.tags() == []
    assert not pushing.exists(shared.descriptor)
    push_environment(pushing, "v2", packages=[b"shared"])
    assert pushing.tags() == ["v2"]


def test_a_damaged_manifest_frees_nothing(folder: Path) -> None:
    storage = layout(folder)
    made = push_environment(storage, "v1")
    blob(b"nameless").pushed(storage)
    path = folder / "blobs/sha256" / made.descriptor.digest.hex
    path.write_bytes(path.read_bytes()[:-1])
    age(folder)
    before = blobs(folder)
    with pytest.raises(InvalidContent, match="a damaged manifest, whose blobs are unknown; nothing was freed"):
        gc_layout(str(folder))
    assert blobs(folder) == before
    storage.remove_tag("v1")
    assert len(gc_layout(str(folder)).digests) == len(before)


def test_a_fifo_in_the_place_of_a_manifest_is_reported(folder: Path) -> None:
    made = push_environment(layout(folder), "v1")
    path = folder / "blobs/sha256" / made.descriptor.digest.hex
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="cannot be read: not a regular file; nothing was freed"):
        gc_layout(str(folder))


def test_a_missing_manifest_ends_no_collection(folder: Path) -> None:
    storage = layout(folder)
    made = push_environment(storage, "v1")
    os.unlink(folder / "blobs/sha256" / made.descriptor.digest.hex)
    push_environment(storage, "v2", packages=[b"other"])
    age(folder)
    gc_layout(str(folder))
    assert storage.resolve("v2")


def test_files_that_are_not_blobs_stay(folder: Path) -> None:
    storage = layout(folder)
    push_environment(storage, "v1")
    (folder / "blobs/sha256/notes.txt").write_text("mine")
    (folder / "blobs/README").write_text("mine")
    storage.push(blob(b"x").descriptor, partial(io.BytesIO, b"x"))
    age(folder)
    assert len(gc_layout(str(folder)).digests) == 1
    assert (folder / "blobs/sha256/notes.txt").exists()


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_blobs_behind_a_link_are_another_folder_s_and_stay(folder: Path, tmp_path: Path, name: str) -> None:
    storage = layout(folder)
    blob(b"nameless").pushed(storage)
    push_environment(storage, "v1")
    age(folder)
    (folder / name).rename(tmp_path / "engine")
    (folder / name).symlink_to(tmp_path / "engine")
    before = blobs(folder)
    with pytest.raises(StoreError, match="a link, so that its blobs may be those of another folder; nothing was freed"):
        gc_layout(str(folder))
    assert blobs(folder) == before


def test_a_folder_without_a_layout_is_reported(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no such OCI layout"):
        gc_layout(str(tmp_path / "missing"))
    with pytest.raises(StoreError, match="not an OCI layout"):
        gc_layout(str(tmp_path))
