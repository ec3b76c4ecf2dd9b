from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.layers.mounting import kernel, overlay
from support.engines import need_root
from support.recording_kernel import RecordingKernel
from support.trees import content, folders, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.mounting.overlay import Upper

    Way = Callable[[Kernel, Sequence[str], str, Upper | None], None]

WAYS = [overlay.by_descriptors, overlay.by_options]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    need_root()
    folder = tmp_path / "target"
    folder.mkdir()
    yield folder
    # Not os.path.ismount, which takes a folder bound within one file system for none.
    while kernel.here().sources(str(folder)):
        kernel.here().umount(str(folder))


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_an_overlay_shows_every_layer_and_the_last_of_what_many_hold(tmp_path: Path, target: Path, way: Way) -> None:
    way(kernel.here(), folders(tmp_path, 30), str(target), None)

    shown = content(target)
    assert len(shown) == 31
    assert shown["shared"] == "29"


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_an_overlay_takes_as_many_layers_as_it_says(tmp_path: Path, target: Path, way: Way) -> None:
    way(kernel.here(), folders(tmp_path, overlay.MAX_LOWERS), str(target), None)

    assert len(os.listdir(target / "lib")) == overlay.MAX_LOWERS


@pytest.mark.root
def test_a_mounts_line_is_one_that_container_engines_read(tmp_path: Path, target: Path) -> None:
    """They refuse lines of 64 KiB in /proc/self/mountinfo, and then start no container on that node."""
    store = tmp_path / ("s" * 120)
    overlay.by_descriptors(kernel.here(), folders(store, overlay.MAX_LOWERS), str(target))

    assert len(os.listdir(target / "lib")) == overlay.MAX_LOWERS
    line = next(each for each in Path("/proc/self/mountinfo").read_text().splitlines() if str(target) in each)
    assert len(line) < 64 << 10


@pytest.mark.root
def test_the_kernels_own_words_say_why_it_refuses(tmp_path: Path, target: Path) -> None:
    with pytest.raises(OSError, match="too many lower directories"):
        overlay.by_descriptors(kernel.here(), folders(tmp_path, overlay.MAX_LOWERS + 1), str(target))


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_an_overlay_is_read_only(tmp_path: Path, target: Path, way: Way) -> None:
    way(kernel.here(), folders(tmp_path, 2), str(target), None)

    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_with_an_upper_folder_changes_go_there_and_layers_stay(tmp_path: Path, target: Path, way: Way) -> None:
    layers = folders(tmp_path / "layers", 2)
    before = content(tmp_path / "layers")
    upper = overlay.Upper(str(tmp_path / "upper"), str(tmp_path / "work"))
    os.mkdir(upper.upper)
    os.mkdir(upper.work)

    way(kernel.here(), layers, str(target), upper)
    (target / "shared").write_text("changed")
    (target / "lib/p0/__init__.py").unlink()

    assert content(target) == {"shared": "changed", "lib/p1/__init__.py": "n = 1\n"}
    assert content(tmp_path / "layers") == before


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["a:b,c\\d e", "x" * 200 + "/" + "y" * 200, "ü\udcff"])
def test_layers_can_be_in_folders_of_any_name(tmp_path: Path, target: Path, way: Way, name: str) -> None:
    way(kernel.here(), folders(tmp_path / name, 2), str(target), None)

    assert len(content(target)) == 3


def test_mount_options_leave_the_working_directory_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fake = RecordingKernel(fails={"mount": errno.EINVAL})

    with pytest.raises(OSError, match="Invalid"):
        overlay.by_options(fake, ["/a", "/b"], "target")

    assert os.getcwd() == str(tmp_path)
    assert fake.calls[0][:3] == ("mount", "lamella", str(tmp_path / "target"))


def test_layers_that_share_one_page_of_options_are_named_from_the_top() -> None:
    fake = RecordingKernel()

    overlay.by_options(fake, ["/lowest", "/highest"], "/target")

    assert fake.calls == [("mount", "lamella", "/target", "overlay", kernel.MS_RDONLY, "lowerdir=0:1")]


def test_descriptors_are_closed_after_a_mount() -> None:
    fake = RecordingKernel()

    overlay.by_descriptors(fake, ["/lowest", "/highest"], "/target")

    assert fake.calls == [
        ("fsopen", "overlay"),
        ("fsconfig", "source", "lamella"),
        ("fsconfig", "lowerdir+", "/highest"),
        ("fsconfig", "lowerdir+", "/lowest"),
        ("fscreate",),
        ("fsmount", kernel.MOUNT_ATTR_RDONLY),
        ("move_mount", "/target"),
    ]
    assert fake.open == set()


def test_changes_do_not_depend_on_the_layers_below_whatever_the_kernels_defaults() -> None:
    fake = RecordingKernel()

    overlay.by_descriptors(fake, ["/a", "/b"], "/target", overlay.Upper("/u", "/w"))
    overlay.by_options(fake, ["/a", "/b"], "/target", overlay.Upper("/u", "/w"))

    assert ("fsconfig", "index", "off") in fake.calls
    assert ("fsconfig", "metacopy", "off") in fake.calls
    assert str(fake.calls[-1][-1]).startswith("lowerdir=0:1,upperdir=u,workdir=w,index=off,metacopy=off")


@pytest.mark.parametrize("call", ["fsconfig", "fscreate", "fsmount", "move_mount"])
def test_descriptors_are_closed_when_the_kernel_refuses(call: str) -> None:
    fake = RecordingKernel(fails={call: errno.EPERM})

    with pytest.raises(PermissionError):
        overlay.by_descriptors(fake, ["/a", "/b"], "/target")

    assert fake.open == set()
    assert fake.mounts == []


@pytest.mark.root
def test_one_folder_is_bound_read_only(tmp_path: Path, target: Path) -> None:
    folder = write(tmp_path / "one", {"file": "x"})

    overlay.bind(kernel.here(), str(folder), str(target))

    assert content(target) == {"file": "x"}
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    (folder / "new").touch()


def test_a_bind_that_can_not_be_made_read_only_is_taken_back(tmp_path: Path) -> None:
    class Refusing(RecordingKernel):
        def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
            super().mount(source, target, fstype, flags, data)
            if flags & kernel.MS_REMOUNT:
                raise PermissionError(errno.EPERM, "Operation not permitted")

    fake = Refusing()
    with pytest.raises(PermissionError):
        overlay.bind(fake, str(tmp_path), "/target")

    assert fake.mounts == []


@pytest.mark.root
def test_mount_points_are_reported_under_their_names(tmp_path: Path) -> None:
    need_root()
    folder = tmp_path / "a b\tc\\040d\ne"
    folder.mkdir()
    overlay.bind(kernel.here(), str(folder), str(folder))
    try:
        assert kernel.here().sources(str(folder))
    finally:
        kernel.here().umount(str(folder))


def test_a_replacement_is_put_beneath_before_the_former_mount_goes(tmp_path: Path) -> None:
    recorded = RecordingKernel(mounts=["/target"], of=["lamella-1"])

    assert overlay.replace(recorded, folders(tmp_path, 2), "/target", "lamella-1")

    assert recorded.names()[-2:] == ["move_mount beneath", "umount"]
    assert recorded.calls[-1] == ("umount", "/target", kernel.MNT_DETACH)
    assert recorded.mounts == ["/target"]
    assert recorded.open == set()


def test_a_kernel_that_puts_no_mount_beneath_gets_the_new_one_after_the_former(tmp_path: Path) -> None:
    recorded = RecordingKernel({"move_mount beneath": errno.EINVAL}, mounts=["/target"], of=["lamella-1"])

    assert not overlay.replace(recorded, folders(tmp_path, 2), "/target", "lamella-1")

    assert recorded.names()[-3:] == ["move_mount beneath", "umount", "move_mount"]
    assert recorded.open == set()


def test_without_descriptors_the_new_mount_is_made_before_the_former_goes(tmp_path: Path) -> None:
    recorded = RecordingKernel({"fsopen": errno.ENOSYS}, mounts=["/target"], of=["lamella-1"])

    assert not overlay.replace(recorded, folders(tmp_path, 2), "/target", "lamella-1")

    assert recorded.names() == ["fsopen", "mount", "umount", "mount", "umount"]
    assert recorded.mounts == ["/target"]


def test_without_descriptors_a_mount_that_can_t_be_made_leaves_the_former_one(tmp_path: Path) -> None:
    recorded = RecordingKernel({"fsopen": errno.ENOSYS, "mount": errno.ENOMEM}, mounts=["/target"], of=["lamella-1"])

    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        overlay.replace(recorded, folders(tmp_path, 2), "/target", "lamella-1")

    assert recorded.mounts == ["/target"]


def test_without_descriptors_a_mount_that_stays_elsewhere_keeps_its_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Busy(RecordingKernel):
        def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
            super().mount(source, target, fstype, flags, data)
            if fstype == "overlay":
                write(tmp_path / os.path.basename(target), {"file": "x"})

        def umount(self, target: str, flags: int = 0) -> None:
            if target != "/target":
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
            super().umount(target, flags)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    recorded = Busy({"fsopen": errno.ENOSYS}, mounts=["/target"], of=["lamella-1"])

    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        overlay.replace(recorded, ["/lowest", "/highest"], "/target", "lamella-1")

    assert list(content(tmp_path).values()) == ["x"]


def test_a_mount_that_can_t_be_made_leaves_the_former_one(tmp_path: Path) -> None:
    recorded = RecordingKernel({"fscreate": errno.ENOMEM}, mounts=["/target"], of=["lamella-1"])

    with pytest.raises(OSError, match=os.strerror(errno.ENOMEM)):
        overlay.replace(recorded, folders(tmp_path, 2), "/target", "lamella-1")

    assert recorded.mounts == ["/target"]
    assert recorded.open == set()
