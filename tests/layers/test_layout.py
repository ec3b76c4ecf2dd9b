"""A layout folder: readable by other tools, whole at any moment, with many pushers, and with clear errors."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lamella.layers import layout
from lamella.layers.errors import InvalidContent, NotFound, StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import MANIFEST, Descriptor, Digest
from lamella.layers.oci.storage import HashedFile, fetch_document
from support.engines import need, need_root
from support.other_systems import refuse_open_files
from support.people import NOBODY, as_user, folder_of
from support.processes import started
from support.published import Blob, blob, push_environment, push_image


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_layout_holds_its_marker_its_index_and_its_blobs(tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    manifest = push_image(OciLayout(str(folder), create=True), [b"content"], "v1")
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((folder / "index.json").read_text())
    assert index["manifests"] == [
        manifest.descriptor.to_value() | {"annotations": {"org.opencontainers.image.ref.name": "v1"}}
    ]
    assert len(files(folder / "blobs" / "sha256")) == 3
    assert not [name for name in files(folder) if "partial" in name]
    modes = {name: stat.S_IMODE((folder / name).stat().st_mode) for name in files(folder)}
    assert modes.pop(".lock") == 0o600, "readers can't lock it"
    assert set(modes.values()) == {0o644}


@pytest.mark.engine
def test_skopeo_reads_a_pushed_image(tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    push_environment(OciLayout(str(folder), create=True))
    command = [need("skopeo"), "inspect", "--raw", f"oci:{folder}:v1"]
    assert len(json.loads(subprocess.check_output(command))["manifests"]) == 2


def test_a_tag_names_the_last_that_was_pushed_with_it(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    push_image(layout, [b"one"], "v1")
    second = push_image(layout, [b"two"], "v1")
    push_image(layout, [b"two"], "v2")
    assert layout.resolve("v1") == layout.resolve("v2") == second.descriptor
    assert layout.tags() == ["v1", "v2"]


def test_entries_of_other_tools_in_the_index_stay(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    push_image(layout, [b"one"], "v1")
    index = json.loads((tmp_path / "index.json").read_text())
    index["annotations"] = {"theirs": "1"}
    index["manifests"][0]["data"] = "e30="
    (tmp_path / "index.json").write_text(json.dumps(index))
    push_image(layout, [b"two"], "v2")
    after = json.loads((tmp_path / "index.json").read_text())
    assert after["annotations"] == {"theirs": "1"}
    assert after["manifests"][0]["data"] == "e30="


def test_a_child_of_an_index_is_found_by_its_digest(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    manifest = push_image(layout, [b"one"])
    assert layout.resolve(str(manifest.descriptor.digest)) == manifest.descriptor
    with pytest.raises(NotFound, match="not in the layout"):
        layout.resolve(str(Digest.of(b"other")))


def test_exists_is_false_for_a_file_of_another_size_and_a_push_mends_it(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    thing = blob(b"content").pushed(layout)
    path = tmp_path / "blobs" / "sha256" / thing.descriptor.digest.hex
    path.chmod(0o644)
    path.write_bytes(b"cont")
    assert not layout.exists(thing.descriptor)
    thing.pushed(layout)
    assert layout.exists(thing.descriptor)
    assert path.read_bytes() == b"content"


def test_a_damaged_blob_is_not_handed_out(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    thing = blob(b"content").pushed(layout)
    (tmp_path / "blobs" / "sha256" / thing.descriptor.digest.hex).write_bytes(b"CONTENT")
    with layout.fetch(thing.descriptor) as stream, pytest.raises(InvalidContent, match="has other content"):
        stream.read()


def test_missing_blob_is_reported(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    blob(b"content").pushed(layout)
    with pytest.raises(NotFound, match=": not in the layout"), layout.fetch(blob(b"other").descriptor):
        pass


@pytest.mark.parametrize("content", [b"CONTENT", b"conten", b"content and more"])
def test_content_that_is_not_the_descriptors_is_refused_and_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "layout"
    layout = OciLayout(str(folder), create=True)
    with pytest.raises(InvalidContent):
        Blob(blob(b"content").descriptor, content).pushed(layout)
    layout.close()
    assert not folder.exists()


def test_missing_tag_is_reported_with_the_existing_tags(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    for number in range(12):
        push_image(layout, [b"one"], f"v{number:02}")
    with pytest.raises(NotFound, match=r": no tag 'nope'.*; it has v00, v01, .*v09 and 2 more"):
        layout.resolve("nope")


def test_reading_a_missing_layout_does_not_create_it(tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    with pytest.raises(NotFound, match=f"{folder}: no such OCI layout"):
        OciLayout(str(folder))
    layout = OciLayout(str(folder), create=True)
    assert not layout.exists(blob(b"content").descriptor)
    for ask in (layout.tags, lambda: layout.resolve("v1")):
        with pytest.raises(NotFound, match="no such OCI layout"):
            ask()
    assert not folder.exists()


def test_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="not a directory; use the folder of an OCI layout"):
        OciLayout(str(tmp_path / "file"), create=True)
    layout = OciLayout(str(tmp_path / "file" / "below"), create=True)
    with pytest.raises(StoreError, match="a file is where a folder should be; name another folder"):
        blob(b"content").pushed(layout)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="not an OCI layout, no file 'oci-layout' in it; use another folder"):
        OciLayout(str(tmp_path), create=True)
    assert files(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "oci-layout",
            '{"imageLayoutVersion": "2.0.0"}',
            "unsupported OCI layout version '2.0.0'; version 1.0.0 is supported",
        ),
        ("oci-layout", "{", "is not JSON, the layout is damaged"),
        ("index.json", "[]", "not a JSON object, the layout is damaged"),
        ("index.json", '{"manifests": 5}', "'manifests' is missing or not a list"),
        ("index.json", None, "missing from a damaged layout"),
    ],
)
def test_damaged_layout_is_reported(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    push_image(OciLayout(str(tmp_path), create=True), [b"one"], "v1")
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InvalidContent, match=message):
        OciLayout(str(tmp_path)).resolve("v1")


def test_a_digest_can_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    push_image(layout, [b"one"], "v1")
    index = json.loads((tmp_path / "index.json").read_text())
    index["manifests"][0]["digest"] = "sha256:../../../etc/passwd"
    (tmp_path / "index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidContent, match="not a digest"):
        layout.resolve("v1")


@pytest.mark.root
def test_full_disk_is_reported_and_leaves_no_partial_files(tmp_path: Path) -> None:
    need_root()
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], check=True)
    try:
        layout = OciLayout(str(disk / "layout"), create=True)
        with pytest.raises(StoreError, match=r"/layout: cannot write sha256:.*: no space left on its disk; free some"):
            blob(os.urandom(1 << 20)).pushed(layout)
        assert files(disk) == []
        push_image(layout, [b"small"], "v1")
        with pytest.raises(StoreError, match="no space left on its disk"):
            push_image(layout, [os.urandom(1 << 20)], "v2")
        assert layout.tags() == ["v1"]
        assert not [name for name in files(disk) if "partial" in name]
    finally:
        subprocess.run([need("umount"), str(disk)], check=True)


@pytest.mark.root
def test_read_only_layout_is_reported() -> None:
    with folder_of(0) as folder:
        push_image(OciLayout(str(folder), create=True), [b"one"], "v1")

        def push() -> None:
            blob(b"two").pushed(OciLayout(str(folder)))

        with pytest.raises(StoreError, match="permission denied; change the folder's permissions or name another"):
            as_user(NOBODY, push)


@pytest.mark.slow
def test_many_pushers_of_one_layout_all_succeed(tmp_path: Path) -> None:
    folder = str(tmp_path / "layout")
    code = """
import sys
sys.path.insert(0, sys.argv[3])
from lamella.layers.layout import OciLayout
from support.published import push_image
layout = OciLayout(sys.argv[1], create=True)
for number in range(5):
    push_image(layout, [b"shared", sys.argv[2].encode()], f"v{sys.argv[2]}-{number}")
"""
    tests = str(Path(__file__).parents[1])
    with ExitStack() as stack:
        pushers = [
            stack.enter_context(started([sys.executable, "-c", code, folder, str(number), tests]))
            for number in range(6)
        ]
        assert [pusher.wait() for pusher in pushers] == [0] * 6
    layout = OciLayout(folder)
    assert len(layout.tags()) == 30
    for tag in layout.tags():
        descriptor = layout.resolve(tag)
        with layout.fetch(descriptor) as stream:
            assert len(stream.read()) == descriptor.size


def test_remains_of_a_killed_pusher_are_removed_later(tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    push_image(OciLayout(str(folder), create=True), [b"one"], "v1")
    code = f"""
import os, signal
from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import Descriptor
class Deadly:
    def read(self, size=-1):
        os.kill(os.getpid(), signal.SIGKILL)
    def close(self):
        pass
OciLayout({str(folder)!r}).push(Descriptor.of("a/b", b"two"), Deadly)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    (left,) = [name for name in files(folder) if "partial" in name]
    layout = OciLayout(str(folder))
    push_image(layout, [b"two"], "v2")
    assert left in files(folder)
    os.utime(folder / left, (0, 0))
    push_image(layout, [b"three"], "v3")
    assert left not in files(folder)
    assert layout.tags() == ["v1", "v2", "v3"]


def test_a_source_that_fails_leaves_nothing(tmp_path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:  # noqa: ARG002 - it gives nothing
            raise OSError(errno.EIO, "Input/output error")

    folder = tmp_path / "layout"
    layout = OciLayout(str(folder), create=True)
    with pytest.raises(StoreError, match="Input/output error"):
        layout.push(blob(b"content").descriptor, Failing)
    layout.close()
    assert not folder.exists()


def test_a_push_that_fails_takes_nothing_from_one_that_is_under_way(tmp_path: Path) -> None:
    """Into a new layout, with folders that the other push is about to fill."""
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    good, bad = blob(b"content"), blob(b"other")

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            with pytest.raises(InvalidContent):
                Blob(bad.descriptor, b"wrong").pushed(layout)
            return super().read(size)

    layout.push(good.descriptor, lambda: Slow(good.content))
    assert layout.exists(good.descriptor)


def test_an_empty_folder_that_was_there_stays_when_a_push_fails(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    with pytest.raises(InvalidContent):
        Blob(blob(b"content").descriptor, b"wrong").pushed(layout)
    layout.close()
    assert tmp_path.exists()


def test_a_layout_has_no_neighbours_to_mount_from(tmp_path: Path) -> None:
    assert not OciLayout(str(tmp_path / "layout"), create=True).mount(blob(b"content").descriptor, "team/other")


def test_manifest_without_a_media_type_is_reported(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    thing = Blob(Descriptor.of(MANIFEST, b"{}"), b"{}").pushed(layout)
    with pytest.raises(InvalidContent, match=": no mediaType"):
        layout.resolve(str(thing.descriptor.digest))


@pytest.mark.parametrize(
    ("there", "adopted"),
    [
        ({"blobs/sha256/" + "a" * 64: "x"}, True),
        ({"blobs/sha256/" + "a" * 64: "x", ".partial-0011223344556677": "x"}, True),
        (
            {"index.json": '{"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json","schemaVersion":2}'},
            True,
        ),
        ({"blobs/photo.jpg": "mine"}, False),
        ({"blobs/sha256/photo.jpg": "mine"}, False),
        ({"blobs/md5/" + "a" * 32: "mine"}, False),
        ({"blobs": "mine"}, False),
        ({"index.json": '{"name": "mine"}'}, False),
    ],
)
def test_an_unfinished_layout_is_finished_and_a_foreign_folder_is_not_adopted(
    tmp_path: Path, there: dict[str, str], adopted: bool
) -> None:
    for name, content in there.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    if adopted:
        push_image(OciLayout(str(tmp_path), create=True), [b"one"], "v1")
        assert OciLayout(str(tmp_path)).tags() == ["v1"]
    else:
        with pytest.raises(StoreError, match="not an OCI layout"):
            OciLayout(str(tmp_path), create=True)
        assert files(tmp_path) == sorted(there)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK])
def test_a_layout_is_made_on_a_file_system_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    push_image(OciLayout(str(tmp_path / "layout"), create=True), [b"one"], "v1")
    assert OciLayout(str(tmp_path / "layout")).tags() == ["v1"]
    assert not [name for name in files(tmp_path / "layout") if "partial" in name]


def test_no_file_is_renamed_linked_or_removed_while_it_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_open_files(monkeypatch)
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    layout.check_writable()
    push_image(layout, [b"one"], "v1")
    with pytest.raises(InvalidContent):
        Blob(blob(b"content").descriptor, b"CONTENT").pushed(layout)
    assert layout.tags() == ["v1"]
    assert not [name for name in files(tmp_path / "layout") if "partial" in name]


def test_many_make_one_layout_at_once_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)

    def make(number: int) -> None:
        push_image(OciLayout(str(tmp_path / "layout"), create=True), [b"%d" % number], f"v{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(8)))
    assert OciLayout(str(tmp_path / "layout")).tags() == [f"v{number}" for number in range(8)]


def test_a_tag_changes_after_the_names_of_all_blobs_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    manifest = push_image(layout, [b"one"])
    done: list[str] = []
    fsync, rename = os.fsync, os.replace

    def note_fsync(descriptor: int) -> None:
        done.append(f"sync {os.path.relpath(os.readlink(f'/proc/self/fd/{descriptor}'), tmp_path)}")
        fsync(descriptor)

    def note_replace(before: str, after: str) -> None:
        done.append(f"rename {os.path.relpath(after, tmp_path)}")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    manifest.pushed(layout, "v1")
    tagged = done.index("rename index.json")
    last = max(number for number, each in enumerate(done) if each.startswith("rename blobs/"))
    assert {"sync blobs/sha256", "sync blobs", "sync ."} <= set(done[last:tagged])
    assert "sync ." in done[tagged:]


def test_a_clock_that_jumps_takes_no_file_of_a_live_pusher(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    push_image(layout, [b"one"], "v1")
    slow = blob(b"content")

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            for partial in tmp_path.glob(".partial-*"):
                os.utime(partial, (0, 0))
            push_image(OciLayout(str(tmp_path)), [b"two"], "v2")
            return super().read(size)

    layout.push(slow.descriptor, lambda: Slow(slow.content))
    assert layout.exists(slow.descriptor)
    assert layout.tags() == ["v1", "v2"]


@pytest.mark.root
@pytest.mark.parametrize(("mode", "lockable"), [(0o755, False), (0o775, False), (0o777, True)])
def test_only_those_who_may_write_a_layout_can_lock_it(mode: int, lockable: bool) -> None:
    with folder_of(0) as folder:
        folder.chmod(mode)
        push_image(OciLayout(str(folder), create=True), [b"one"], "v1")

        def open_lock() -> bool:
            try:
                os.close(os.open(folder / ".lock", os.O_RDONLY))
            except PermissionError:
                return False
            return True

        assert as_user(NOBODY, open_lock) == lockable


def test_a_wait_for_another_push_ends_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PATIENCE", 0.05)
    push_image(OciLayout(str(tmp_path), create=True), [b"one"], "v1")
    with (tmp_path / ".lock").open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreError, match=r": locked by another process for 0\.05 s; end it, then push again"):
            push_image(OciLayout(str(tmp_path)), [b"two"], "v2")
    push_image(OciLayout(str(tmp_path)), [b"two"], "v2")


def test_a_reader_of_a_first_push_under_way_is_asked_to_wait(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    push_image(layout, [b"content"], "v1")
    (tmp_path / "layout" / "oci-layout").unlink()
    (tmp_path / "layout" / "index.json").unlink()
    with pytest.raises(NotFound, match=r"layout: its first push has not ended; wait for it, or push again"):
        OciLayout(str(tmp_path / "layout"))


@pytest.mark.parametrize("name", ["oci-layout", "index.json", "blob"])
def test_a_fifo_in_a_layout_is_an_error_and_not_waited_for(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "layout"
    digest = push_image(OciLayout(str(folder), create=True), [b"content"], "v1").descriptor.digest
    path = folder / (f"blobs/sha256/{digest.hex}" if name == "blob" else name)
    path.unlink()
    os.mkfifo(path)

    def read() -> bytes:
        storage = OciLayout(str(folder))
        return fetch_document(storage, storage.resolve("v1"))

    with pytest.raises(StoreError, match=r"cannot read .*not a regular file"):
        read()


def test_a_symlink_in_the_place_of_the_lock_is_reported(tmp_path: Path) -> None:
    layout = OciLayout(str(tmp_path), create=True)
    push_image(layout, [b"one"], "v1")
    (tmp_path / ".lock").unlink()
    (tmp_path / ".lock").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match="cannot write to the layout: a symlink is in the place of a file"):
        push_image(layout, [b"two"], "v2")


@pytest.mark.parametrize("answer", [None, 0, errno.EXDEV, errno.EOPNOTSUPP])
def test_a_file_that_was_hashed_is_copied_by_the_kernel_or_as_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int | None
) -> None:
    content = bytes(range(256)) * 5_000
    (tmp_path / "blob").write_bytes(content)
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    copies = []

    def copy(source: int, target: int, count: int, real: Any = os.copy_file_range) -> int:
        copies.append(count)
        # Some of it, and then an error or an early end: the copy starts again.
        if answer and len(copies) > 1:
            raise OSError(answer, os.strerror(answer))
        if answer == 0 and len(copies) > 1:
            return 0
        copied: int = real(source, target, count if answer is None else 1000)
        return copied

    monkeypatch.setattr(os, "copy_file_range", copy)
    descriptor = blob(content).descriptor
    layout.push(descriptor, lambda: HashedFile(str(tmp_path / "blob")))
    assert copies
    assert (tmp_path / "layout/blobs/sha256" / descriptor.digest.hex).read_bytes() == content
    with pytest.raises(InvalidContent, match="longer than"):
        layout.push(blob(content[1:]).descriptor, lambda: HashedFile(str(tmp_path / "blob")))
