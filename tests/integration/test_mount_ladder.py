from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import MountError
from lamella.layers.mounting.kernel import CLONE_NEWNS, MS_PRIVATE, MS_REC, LinuxKernel
from lamella.layers.mounting.mount import MountOptions, mount, mounts, place, umount
from lamella.layers.pulling import fetch, pull  # noqa: F401 # a child without privileges may be unable to import them
from lamella.layers.store import leases
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from support.engines import missing, need, need_root
from support.people import NOBODY, as_user, folder_of, give
from support.processes import exit_code, forked
from support.published import publish
from support.recording_kernel import RecordingKernel
from support.trees import content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lamella.layers.mounting.claims import Mounted
    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.mounting.ladder import Method

pytestmark = pytest.mark.root

LAYERS = [{"bin/tool*": "#!/bin/sh\n", "a": "1"}, {"b": "2"}, {"lib/c": "3"}]
SHOWN = {"bin/tool": "#!/bin/sh\n", "a": "1", "b": "2", "lib/c": "3"}
EVERY: list[Method] = ["overlay", "options", "hardlinks", "copies"]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    need_root()
    store = Store(str(tmp_path / "store"))
    yield store
    for mounted in mounts(store):
        with suppress(MountError):  # another namespace's, which ended with its process
            umount(mounted.target, store=store, lazy=True)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return publish(tmp_path / "layout", LAYERS)


def mount_with(
    kernel: Kernel, reference: str, target: str, *, store: Store, options: MountOptions = MountOptions()
) -> Mounted:
    with pull.leased(reference, store=store) as pulled:
        return place(pulled, target, options, store=store, kernel=kernel)


def left_over(store: Store) -> list[str]:
    """What mounting left in the store, beyond layers and documents."""
    return [
        name
        for folder in ("mounts", "holds", "leases", "partial", "locks")
        if os.path.isdir(f"{store.path}/{folder}")
        for name in os.listdir(f"{store.path}/{folder}")
    ]


@pytest.mark.parametrize("method", EVERY)
def test_every_rung_shows_the_environment_and_umount_leaves_nothing(
    store: Store, reference: str, tmp_path: Path, method: Method
) -> None:
    target = tmp_path / "new" / "target"

    mounted = mount(reference, str(target), store=store, options=MountOptions(method=method))

    assert content(target) == SHOWN
    assert mounted.method == method
    assert [state.target for state in mounts(store)] == [str(target)]
    assert umount(str(target), store=store) == mounted
    assert not (tmp_path / "new").exists()
    assert left_over(store) == []


@pytest.fixture
def with_reflinks(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that shares bytes between files."""
    need_root()
    disk, folder = tmp_path / "disk", tmp_path / "xfs"
    folder.mkdir()
    with disk.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run([need("mkfs.xfs"), "-q", "-m", "reflink=1", disk], check=True)
    if subprocess.run(["mount", "-o", "loop", disk, folder], check=False, capture_output=True).returncode:
        missing("no XFS can be mounted from a file here: load the kernel's xfs and loop modules")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.engine
def test_reflinks_share_bytes_and_nothing_else(with_reflinks: Path, reference: str) -> None:
    store = Store(str(with_reflinks / "store"))
    target = with_reflinks / "target"

    mount(reference, str(target), store=store, options=MountOptions(method="reflinks", writable=True))

    assert content(target) == SHOWN
    assert os.access(target / "bin/tool", os.X_OK)
    assert (target / "a").stat().st_nlink == 1
    (target / "a").write_text("changed")
    umount(str(target), store=store)
    mount(reference, str(target), store=store, options=MountOptions(method="hardlinks"))
    assert content(target) == SHOWN
    umount(str(target), store=store)


def test_the_best_rung_that_works_is_taken(store: Store, reference: str, tmp_path: Path) -> None:
    mounted = mount(reference, str(tmp_path / "target"), store=store)

    assert [(rung.method, rung.why_not) for rung in mounted.rungs] == [("overlay", "")]


class WithoutDescriptors(LinuxKernel):
    """A kernel older than 6.7, or a container's filter without fsopen."""

    def fsopen(self, fstype: str) -> int:  # noqa: ARG002
        raise OSError(errno.ENOSYS, "Function not implemented")


class WithoutOverlay(WithoutDescriptors):
    """A kernel that has no overlayfs."""

    def mount(self, *_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "No such device")


def test_each_skipped_rung_has_its_reason(store: Store, reference: str, tmp_path: Path) -> None:
    older = mount_with(WithoutDescriptors(), reference, str(tmp_path / "older"), store=store)
    without = mount_with(WithoutOverlay(), reference, str(tmp_path / "without"), store=store)

    assert [(rung.method, rung.why_not) for rung in older.rungs] == [
        ("overlay", "Function not implemented"),
        ("options", ""),
    ]
    assert [(rung.method, rung.why_not) for rung in without.rungs] == [
        ("overlay", "Function not implemented"),
        ("options", "No such device"),
        ("hardlinks", ""),
    ]
    assert content(tmp_path / "older") == content(tmp_path / "without") == SHOWN


def test_when_no_rung_works_everything_is_as_it_was(store: Store, reference: str, tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"can't be put at .*target \(options: No such device\)"):
        mount_with(
            WithoutOverlay(), reference, str(tmp_path / "target"), store=store, options=MountOptions(method="options")
        )

    assert not (tmp_path / "target").exists()
    assert left_over(store) == []


def test_an_environment_of_one_layer_mounts(store: Store, tmp_path: Path) -> None:
    mount(publish(tmp_path / "layout", [{"only": "1"}]), str(tmp_path / "target"), store=store)

    assert content(tmp_path / "target") == {"only": "1"}
    with pytest.raises(OSError, match="Read-only"):
        (tmp_path / "target/new").touch()


def test_twelve_hundred_layers_mount(store: Store, tmp_path: Path) -> None:
    layers = [{f"lib/{number}": str(number)} for number in range(1200)]

    mount(publish(tmp_path / "layout", layers), str(tmp_path / "target"), store=store)

    assert len(os.listdir(tmp_path / "target/lib")) == 1200


@pytest.mark.parametrize("method", ["overlay", "options", "copies"])
def test_changes_are_discarded_and_the_store_stays(
    store: Store, reference: str, tmp_path: Path, method: Method
) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store, options=MountOptions(method=method, writable=True))

    (target / "a").write_text("changed")
    (target / "new").write_text("new")
    umount(str(target), store=store)
    mount(reference, str(target), store=store)

    assert content(target) == SHOWN


def test_changes_are_kept_in_the_requested_folder(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    kept = str(tmp_path / "kept")
    for expected in (SHOWN, {"a": "changed", "b": "2", "lib/c": "3"}):
        mount(reference, str(target), store=store, options=MountOptions(changes=kept))
        assert content(target) == expected
        (target / "a").write_text("changed")
        (target / "bin/tool").unlink(missing_ok=True)
        umount(str(target), store=store)


@pytest.mark.parametrize("method", ["overlay", "options"])
def test_changes_that_were_tied_to_one_version_are_seen_over_another(
    store: Store, reference: str, tmp_path: Path, method: Method
) -> None:
    """As a mount by hand leaves them, or a kernel whose defaults are these."""
    kept, target = tmp_path / "kept", tmp_path / "target"
    for folder in (kept / "upper", kept / "work", target):
        folder.mkdir(parents=True)
    first = [store.layer_path(layer.diff_id) for layer in pull.pull(reference, store=store).environment.layers]
    lowers = ":".join(f"{path}/opt/env" for path in first)
    options = f"index=on,metacopy=on,lowerdir={lowers},upperdir={kept}/upper,workdir={kept}/work"
    subprocess.run([need("mount"), "-t", "overlay", "-o", options, "by-hand", target], check=True)
    (target / "a").write_text("changed")
    subprocess.run([need("umount"), target], check=True)
    second = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n", "a": "2"}, {"b": "new"}], tag="v2")

    mount(second, str(target), store=store, options=MountOptions(method=method, changes=str(kept)))

    assert content(target) == {"bin/tool": "#!/bin/sh\n", "a": "changed", "b": "new"}
    umount(str(target), store=store)


def test_changes_that_are_to_be_kept_are_never_taken_by_a_tree_that_umount_empties(
    store: Store, reference: str, tmp_path: Path
) -> None:
    kept = tmp_path / "parent/kept"

    with pytest.raises(MountError, match="copies: only a mount can keep changes, and only root can mount"):
        mount_with(
            WithoutOverlay(), reference, str(tmp_path / "target"), store=store, options=MountOptions(changes=str(kept))
        )

    assert not (tmp_path / "parent").exists()
    assert left_over(store) == []


def test_changes_of_two_mounts_do_not_go_to_one_folder(store: Store, reference: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    mount(reference, str(tmp_path / "one"), store=store, options=MountOptions(changes=str(kept)))
    (tmp_path / "one/a").write_text("changed")

    for folder in (kept, kept / "below", tmp_path):
        with pytest.raises(MountError, match=r"already holds the changes of .*/one;|would hide"):
            mount(reference, str(tmp_path / "two"), store=store, options=MountOptions(changes=str(folder)))
    umount(str(tmp_path / "one"), store=store)
    mount(reference, str(tmp_path / "two"), store=store, options=MountOptions(changes=str(kept)))

    assert (tmp_path / "two/a").read_text() == "changed"


@pytest.mark.parametrize("below", ["", "/changes"])
def test_changes_below_the_mount_are_refused(store: Store, reference: str, tmp_path: Path, below: str) -> None:
    target = str(tmp_path / "target")

    with pytest.raises(MountError, match=r"--changes .*: the mount at .*target would hide it"):
        mount(reference, target, store=store, options=MountOptions(changes=target + below))

    assert left_over(store) == []


def test_a_writable_tree_is_never_of_hardlinks(store: Store, reference: str, tmp_path: Path) -> None:
    with pytest.raises(MountError, match="would be written into the store"):
        mount(reference, str(tmp_path / "target"), store=store, options=MountOptions(method="hardlinks", writable=True))


def test_a_folder_that_is_not_empty_is_left_alone(store: Store, reference: str, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target/mine").write_text("mine")

    with pytest.raises(MountError, match="target: not empty"):
        mount(reference, str(tmp_path / "target"), store=store)

    assert content(tmp_path / "target") == {"mine": "mine"}
    assert left_over(store) == []


def test_a_mount_that_another_process_makes_at_the_same_time_is_taken(
    store: Store, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    listdir = os.listdir
    made: list[Mounted] = []

    def listed_late(path: str) -> list[str]:
        if path == str(target):
            monkeypatch.setattr(os, "listdir", listdir)
            made.append(mount(reference, path, store=store))
        return listdir(path)

    monkeypatch.setattr(os, "listdir", listed_late)

    assert [mount(reference, str(target), store=store)] == made


@pytest.mark.parametrize("method", EVERY)
def test_one_folder_holds_one_environment(store: Store, reference: str, tmp_path: Path, method: Method) -> None:
    first = mount(reference, str(tmp_path / "target"), store=store, options=MountOptions(method=method))
    other = publish(tmp_path / "other", [{"other": "1"}])

    with pytest.raises(MountError, match=rf"target: already holds {first.reference}; unmount it first: lamella umount"):
        mount(other, str(tmp_path / "target"), store=store, options=MountOptions(method=method))

    assert content(tmp_path / "target") == SHOWN


@pytest.mark.parametrize("method", EVERY)
def test_an_environment_is_not_mounted_twice_at_one_target(
    store: Store, reference: str, tmp_path: Path, method: Method
) -> None:
    target = str(tmp_path / "target")
    first = mount(reference, target, store=store, options=MountOptions(method=method))
    made = os.stat(target).st_ctime_ns

    assert mount(reference, target, store=store, options=MountOptions(method=method)) == first
    assert mount(first.reference, target, store=store) == first

    assert os.stat(target).st_ctime_ns == made
    umount(target, store=store)
    assert left_over(store) == []


@pytest.mark.parametrize(
    "other", [MountOptions(writable=True), MountOptions(prefix="/srv/env"), MountOptions(method="copies")]
)
def test_a_mount_with_other_options_stays_as_it_is(
    store: Store, reference: str, tmp_path: Path, other: MountOptions
) -> None:
    mount(reference, str(tmp_path / "target"), store=store, options=MountOptions(method="hardlinks"))

    with pytest.raises(MountError, match=r"already holds .*, with other options; unmount it first: lamella umount"):
        mount(reference, str(tmp_path / "target"), store=store, options=other)

    assert content(tmp_path / "target") == SHOWN


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    need_root()
    folder = tmp_path / "noexec"
    folder.mkdir()
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "noexec", "tmpfs", folder], check=True)
    yield folder
    subprocess.run([need("umount"), folder], check=True)


@pytest.mark.parametrize("method", ["overlay", "options"])
def test_an_overlay_runs_from_and_on_a_noexec_disk(noexec: Path, reference: str, method: Method) -> None:
    store = Store(str(noexec / "store"))
    mount(reference, str(noexec / "target"), store=store, options=MountOptions(method=method))
    assert subprocess.run([noexec / "target/bin/tool"], check=False).returncode == 0
    umount(str(noexec / "target"), store=store)


@pytest.mark.parametrize("method", ["hardlinks", "copies"])
def test_a_tree_on_a_noexec_disk_is_refused_and_leaves_nothing(noexec: Path, reference: str, method: Method) -> None:
    store = Store(str(noexec / "store"))
    with pytest.raises(
        MountError, match=f"{method}: programs can't run there: the file system of .* is mounted noexec"
    ):
        mount(reference, str(noexec / "target"), store=store, options=MountOptions(method=method))
    assert not (noexec / "target").exists()
    assert mounts(store) == ()


def test_an_environment_of_one_layer_is_copied_from_a_noexec_disk(noexec: Path, tmp_path: Path) -> None:
    store = Store(str(noexec / "store"))
    reference = publish(tmp_path / "layout", LAYERS[:1])
    mounted = mount(reference, str(tmp_path / "target"), store=store)
    assert mounted.method == "copies"
    assert subprocess.run([tmp_path / "target/bin/tool"], check=False).returncode == 0
    umount(str(tmp_path / "target"), store=store)


def test_an_interpreter_that_is_not_executable_is_refused(store: Store, tmp_path: Path) -> None:
    """As on a file system that imposes modes."""
    reference = publish(tmp_path / "layout", [{"bin/python3": "x"}, {"a": "1"}])
    with pytest.raises(MountError, match=r"overlay: programs can't run there: .*/bin/python3 is not executable"):
        mount(reference, str(tmp_path / "target"), store=store)
    assert left_over(store) == []


def test_only_a_mounted_environment_can_be_unmounted(store: Store, tmp_path: Path) -> None:
    with pytest.raises(MountError, match=r"no environment of the store .* is mounted here"):
        umount(str(tmp_path), store=store)


def test_a_mount_in_use_is_named_and_can_be_taken_away_lazily(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store)

    with (target / "a").open() as file:
        with pytest.raises(MountError, match="in use; stop the programs"):
            umount(str(target), store=store)
        umount(str(target), store=store, lazy=True)
        assert file.read() == "1"
    assert not target.exists()


def test_gc_leaves_mounted_layers(store: Store, reference: str, tmp_path: Path) -> None:
    mount(reference, str(tmp_path / "target"), store=store)

    assert gc(store, keep_bytes=0).layers == ()
    umount(str(tmp_path / "target"), store=store)
    assert len(gc(store, keep_bytes=0).layers) == len(LAYERS)


@pytest.mark.parametrize("method", ["hardlinks", "copies"])
def test_a_foreign_folder_in_a_trees_place_is_left_alone(
    store: Store, reference: str, tmp_path: Path, method: Method
) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store, options=MountOptions(method=method))
    shutil.rmtree(target)
    target.mkdir()
    (target / "data").write_text("precious")

    with pytest.raises(MountError, match="target: not empty, the mount would hide its content"):
        mount(reference, str(target), store=store)
    assert content(target) == {"data": "precious"}
    shutil.rmtree(target)
    mount(reference, str(target), store=store, options=MountOptions(method=method))
    shutil.rmtree(target)
    target.mkdir()
    (target / "data").write_text("precious")

    assert not umount(str(target), store=store).whole
    assert content(target) == {"data": "precious"}
    assert left_over(store) == []


def test_a_foreign_mount_in_the_environments_place_is_left_alone(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store)
    subprocess.run(["umount", target], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "volume", target], check=True)
    try:
        (target / "data").write_text("precious")

        assert not umount(str(target), store=store).whole
        assert content(target) == {"data": "precious"}
        assert left_over(store) == []
    finally:
        subprocess.run(["umount", target], check=True)


def test_a_mount_that_was_moved_with_a_folder_above_it_keeps_its_layers(
    store: Store, reference: str, tmp_path: Path
) -> None:
    target, moved = tmp_path / "before/target", tmp_path / "after/target"
    (tmp_path / "before").mkdir()
    mount(reference, str(target), store=store)
    (tmp_path / "before").rename(tmp_path / "after")

    assert gc(store, keep_bytes=0).layers == ()
    with pytest.raises(MountError, match="the mount was moved elsewhere; unmount it there first"):
        umount(str(target), store=store)
    assert content(moved) == SHOWN

    subprocess.run(["umount", moved], check=True)
    assert len(gc(store, keep_bytes=0).layers) == len(LAYERS)


def test_a_mount_over_an_environment_is_named(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store)
    subprocess.run(["mount", "-t", "tmpfs", "volume", target], check=True)

    with pytest.raises(MountError, match="another mount covers the environment"):
        umount(str(target), store=store)

    subprocess.run(["umount", target], check=True)
    assert content(target) == SHOWN


def test_layers_of_a_mount_that_another_hand_took_away_are_freed(store: Store, reference: str, tmp_path: Path) -> None:
    mount(reference, str(tmp_path / "mount"), store=store, options=MountOptions(writable=True))
    mount(reference, str(tmp_path / "tree"), store=store, options=MountOptions(method="copies"))
    subprocess.run(["umount", tmp_path / "mount"], check=True)
    shutil.rmtree(tmp_path / "tree")

    assert len(gc(store, keep_bytes=0).layers) == len(LAYERS)
    assert left_over(store) == []


@contextmanager
def elsewhere(do: Callable[[], object]) -> Iterator[None]:
    """A process in a mount namespace of its own, as a pod has one, that did something there and lives until the end."""
    from_child, to_here = os.pipe()

    def stay() -> None:
        LinuxKernel().unshare(CLONE_NEWNS)
        LinuxKernel().mount("", "/", flags=MS_REC | MS_PRIVATE)
        do()
        os.write(to_here, b"done")
        signal.pause()

    with forked(stay), os.fdopen(from_child, "rb") as done:
        os.close(to_here)
        assert done.read(4) == b"done"
        yield


def test_mounts_at_one_path_in_two_namespaces_are_two(store: Store, reference: str, tmp_path: Path) -> None:
    target = str(tmp_path / "target")
    pull.pull(reference, store=store)

    def mount_and_write() -> None:
        mount(reference, target, store=store, options=MountOptions(writable=True))
        (tmp_path / "target/new").write_text("new")

    with elsewhere(mount_and_write):
        with pytest.raises(MountError, match=r"no environment of the store .* is mounted here"):
            umount(target, store=store)
        mount(reference, target, store=store)
        umount(target, store=store)

        [other] = mounts(store)
        assert os.listdir(f"{store.path}/mounts/{other.key}/upper") == ["new"]
        assert gc(store, keep_bytes=0).layers == ()


def test_a_mount_that_a_namespace_inherited_is_held_until_both_are_gone(
    store: Store, reference: str, tmp_path: Path
) -> None:
    target = str(tmp_path / "target")
    mount(reference, target, store=store)

    with elsewhere(lambda: umount(target, store=store)):
        assert content(tmp_path / "target") == SHOWN
        assert gc(store, keep_bytes=0).layers == ()

    umount(target, store=store)
    assert left_over(store) == []


def test_claim_of_an_ended_namespace_ends_when_every_process_is_visible(
    store: Store, reference: str, tmp_path: Path
) -> None:
    with elsewhere(lambda: mount(reference, str(tmp_path / "target"), store=store)):
        [left] = mounts(store)
    everything = os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"

    freed = gc(store, keep_bytes=0).layers

    assert len(freed) == (len(LAYERS) if everything else 0)
    assert list(mounts(store)) == ([] if everything else [left])


def test_layers_of_a_tree_in_the_stores_folder_are_freed_after_any_process_removed_it(
    store: Store, reference: str
) -> None:
    target = f"{store.path}/pods/one/env"
    with elsewhere(lambda: mount(reference, target, store=store, options=MountOptions(method="hardlinks"))):
        assert gc(store, keep_bytes=0).layers == ()
        shutil.rmtree(target)

        assert len(gc(store, keep_bytes=0).layers) == len(LAYERS)
        assert left_over(store) == []


def test_layers_of_a_tree_that_another_namespace_may_see_stay(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "volume"
    with elsewhere(lambda: mount(reference, str(target), store=store, options=MountOptions(method="hardlinks"))):
        shutil.rmtree(target)  # as it looks where the other's volume is not mounted

        assert gc(store, keep_bytes=0).layers == ()
    leases.release(store, f"mount-{next(iter(mounts(store))).key}")


@pytest.mark.parametrize("text", ["", "# {", "# {}", "# []"])
@pytest.mark.parametrize("afterwards", ["umount", "mount"])
def test_a_claim_that_a_loss_of_power_tore_is_one_whose_method_is_not_known(
    store: Store, reference: str, tmp_path: Path, text: str, afterwards: str
) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store)
    [claim] = os.listdir(f"{store.path}/holds")
    (tmp_path / "store/holds" / claim).write_text(text)

    if afterwards == "mount":
        mount(reference, str(target), store=store)
        assert content(target) == SHOWN
        assert len(LinuxKernel().sources(str(target))) == 1
    umount(str(target), store=store)

    assert LinuxKernel().sources(str(target)) == []
    assert left_over(store) == []


@pytest.mark.parametrize("options", [MountOptions(), MountOptions(method="copies"), MountOptions(writable=True)])
def test_roots_mount_is_readable_by_all_users_under_any_umask(reference: str, options: MountOptions) -> None:
    need_root()
    listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "bin/where", "kind": "text"}]})
    with folder_of(0) as folder:
        layers = [{"bin/where": "/opt/env", ".lamella/relocate/pypi-where.json": listed}, {"lib/a": "1"}]
        reference = publish(folder / "layout", layers)
        store, target = Store(str(folder / "store")), folder / "new/target"
        before = os.umask(0o077)
        try:
            mount(reference, str(target), store=store, options=options)
        finally:
            os.umask(before)
        shown = as_user(NOBODY, lambda: content(target))
        umount(str(target), store=store)

    assert shown["bin/where"] == str(target)


def test_after_a_restart_of_the_machine_the_same_mount_can_be_made(
    store: Store, reference: str, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    mount(reference, str(target), store=store, options=MountOptions(writable=True))
    subprocess.run(["umount", target], check=True)

    mount(reference, str(target), store=store)

    assert content(target) == SHOWN


CALLS = ["fsopen", "fsconfig", "fscreate", "fsmount", "move_mount"]


@pytest.mark.parametrize("call", CALLS)
def test_a_mount_is_claimed_before_the_kernel_is_asked(store: Store, reference: str, tmp_path: Path, call: str) -> None:
    claims: list[object] = []

    class Watching(RecordingKernel):
        def _record(self, name: str, *arguments: object) -> None:
            if name == call:
                [state] = mounts(store)
                claims.append((state.method, len(os.listdir(f"{store.path}/holds"))))
            super()._record(name, *arguments)

    mount_with(Watching(), reference, str(tmp_path / "target"), store=store)

    assert claims[0] == ("overlay", 1)
    umount(str(tmp_path / "target"), store=store, kernel=RecordingKernel())


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("afterwards", ["umount", "mount"])
def test_remains_of_a_crash_are_removed(
    store: Store, reference: str, tmp_path: Path, call: str, afterwards: str
) -> None:
    target = tmp_path / "target"

    class Crashing(LinuxKernel):
        def __getattribute__(self, name: str) -> object:
            if name == call:
                os._exit(9)
            return super().__getattribute__(name)

    options = MountOptions(writable=True)
    assert exit_code(lambda: mount_with(Crashing(), reference, str(target), store=store, options=options)) == 9

    if afterwards == "mount":
        mount(reference, str(target), store=store)
        assert content(target) == SHOWN
    umount(str(target), store=store)
    gc(store)
    assert not target.exists()
    assert left_over(store) == []


def test_remains_of_a_crash_right_after_the_mount_are_removed(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"

    class Crashing(LinuxKernel):
        def move_mount(self, mount: int, target: str, *, beneath: bool = False) -> None:
            super().move_mount(mount, target, beneath=beneath)
            os._exit(9)

    assert exit_code(lambda: mount_with(Crashing(), reference, str(target), store=store)) == 9
    assert os.path.ismount(target)

    umount(str(target), store=store)

    assert not target.exists()


def test_a_mount_that_was_at_the_target_before_stays(store: Store, reference: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "volume", target], check=True)
    try:
        mount(reference, str(target), store=store)
        assert content(target) == SHOWN
        umount(str(target), store=store)
        assert content(target) == {}
        assert os.path.ismount(target)
    finally:
        subprocess.run(["umount", target], check=True)


def test_many_who_mount_one_environment_at_one_folder_at_once_make_one_mount(
    store: Store, reference: str, tmp_path: Path
) -> None:
    pull.pull(reference, store=store)
    outcomes: list[str] = []

    def attempt() -> None:
        outcomes.append(mount(reference, str(tmp_path / "target"), store=store).method)

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert outcomes == ["overlay"] * 6
    assert len(LinuxKernel().sources(str(tmp_path / "target"))) == 1


def test_files_that_hold_the_image_prefix_name_the_target(store: Store, tmp_path: Path) -> None:
    listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "bin/where", "kind": "text"}]})
    script = {"bin/where*": "#!/opt/env/bin/sh\necho /opt/env\n", ".lamella/relocate/pypi-where.json": listed}
    reference = publish(tmp_path / "layout", [script, {"bin/sh": "->/bin/sh"}])
    target = tmp_path / "t"

    mount(reference, str(target), store=store)

    assert subprocess.run([target / "bin/where"], check=True, capture_output=True, text=True).stdout == f"{target}\n"


def test_what_another_root_sees_at_the_image_prefix_names_that(store: Store, tmp_path: Path) -> None:
    listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "x", "kind": "text"}]})
    reference = publish(tmp_path / "layout", [{"x": "/opt/env", ".lamella/relocate/pypi-x.json": listed}, {"y": ""}])
    for folder in ("root/usr", "root/etc"):
        (tmp_path / folder).mkdir(parents=True)

    mount(reference, str(tmp_path / "root/opt/env"), store=store)
    mount(reference, str(tmp_path / "home/opt/env"), store=store)
    mount(reference, str(tmp_path / "named"), store=store, options=MountOptions(prefix="/elsewhere"))

    assert (tmp_path / "root/opt/env/x").read_text() == "/opt/env"
    assert (tmp_path / "home/opt/env/x").read_text() == f"{tmp_path}/home/opt/env"
    assert (tmp_path / "named/x").read_text() == "/elsewhere"


def test_a_file_that_can_not_name_the_target_is_named(store: Store, tmp_path: Path) -> None:
    listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "lib/x.so", "kind": "binary"}]})
    layers = [{"lib/x.so": "\0/opt/env/share\0", ".lamella/relocate/conda-x.json": listed}, {"y": ""}]

    with pytest.raises(
        MountError, match=r"cannot relocate the environment to .*: lib/x\.so holds the prefix in 14 bytes"
    ):
        mount(publish(tmp_path / "layout", layers), str(tmp_path / "target"), store=store)

    assert left_over(store) == []


def test_an_ordinary_user_gets_a_tree_and_the_reason_why_it_is_not_a_mount() -> None:
    need_root()
    with folder_of(NOBODY) as folder:
        reference = publish(folder / "layout", LAYERS)
        own = Store(str(folder / "store"))
        give(folder, NOBODY)
        as_user(NOBODY, partial(pull.pull, reference, store=own))

        mounted = as_user(NOBODY, partial(mount, reference, str(folder / "target"), store=own))

        assert mounted.method == "hardlinks"
        assert mounted.rungs[0].why_not == "only root may mount where others see it: lamella run needs no privilege"
        assert content(folder / "target") == SHOWN
        with pytest.raises(MountError, match="only root may mount where others see it: lamella run needs no privilege"):
            as_user(
                NOBODY,
                partial(mount, reference, str(folder / "other"), store=own, options=MountOptions(method="overlay")),
            )
        as_user(NOBODY, partial(umount, str(folder / "target"), store=own))
        assert not (folder / "target").exists()


def test_changes_of_an_ordinary_user_are_refused_with_the_reason() -> None:
    need_root()
    with folder_of(NOBODY) as folder:
        reference = publish(folder / "layout", LAYERS)
        own = Store(str(folder / "store"))
        give(folder, NOBODY)
        as_user(NOBODY, partial(pull.pull, reference, store=own))
        keep = partial(
            mount, reference, str(folder / "target"), store=own, options=MountOptions(changes=str(folder / "kept"))
        )

        with pytest.raises(MountError, match="copies: only a mount can keep changes, and only root can mount"):
            as_user(NOBODY, keep)

        assert sorted(os.listdir(folder)) == ["layout", "store"]


def test_an_ordinary_user_has_a_tree_of_what_root_pulled(monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    with folder_of(0) as folder, folder_of(NOBODY) as home:
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        listed = json.dumps({"prefix": "/opt/env", "files": [{"path": "where", "kind": "text"}]})
        layers = [{"where": "/opt/env", ".lamella/relocate/pypi-where.json": listed}, {"lib/a": "1"}]
        reference = publish(folder / "layout", layers)
        store, target = Store(str(folder / "store")), home / "target"
        pull.pull(reference, store=store)

        assert as_user(NOBODY, partial(mount, reference, str(target), store=store)).method in ("reflinks", "copies")
        assert (target / "where").read_text() == str(target)
        [mounted] = as_user(NOBODY, partial(mounts, store))
        as_user(NOBODY, partial(umount, mounted.target, store=store))

        assert not target.exists()
        assert gc(store, keep_bytes=0).bytes > 0
