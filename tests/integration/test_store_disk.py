"""The store on disks that refuse: full, read-only, of another user. One clear sentence, nothing lost, nothing left."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError, StoreError
from lamella.layers.exporting.export import export
from lamella.layers.layout import OciLayout
from lamella.layers.mounting.mount import MountOptions, mount
from lamella.layers.pulling.pull import leased, pull
from lamella.layers.store import leases
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.usage import disk_usage, stored_environments
from lamella.layers.upkeep.verify import verify
from support import tars
from support.disks import disk, ext4, fill
from support.engines import missing, need, need_root
from support.people import NOBODY, as_user, folder_of
from support.processes import forked
from support.published import publish_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def references(tmp_path: Path) -> list[str]:
    """A small environment, and one that has it and 3 MB more; what the latter unpacks to is not announced."""
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    small = tars.layer(tars.tree({"opt/env/small": os.urandom(50_000)}))
    large = [tars.layer(tars.tree({f"opt/env/{name}": bytes(1 << 20)})) for name in "abc"]
    publish_layers(layout, "small", [small])
    publish_layers(layout, "large", [small, *large])
    return [f"oci:{tmp_path}/layout:{tag}" for tag in ("small", "large")]


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path: Path, references: list[str]) -> None:
    with disk(tmp_path / "disk", "size=1900k"):
        store = Store(str(tmp_path / "disk" / "store"))
        first = pull(references[0], store=store)
        with pytest.raises(StoreError, match=r"disk/store is full: free space with lamella gc, or choose another disk"):
            pull(references[1], store=store)
        assert verify(store).damaged == ()
        assert pull(first.reference, store=store).moved == 0
        gc(store)
        left = {name: os.listdir(f"{store.path}/{name}") for name in ("partial", "locks", "leases")}
        assert left == {"partial": [], "locks": [], "leases": []}
        subprocess.run([need("mount"), "-o", "remount,size=8m", tmp_path / "disk"], check=True)
        pull(references[1], store=store)
        assert verify(store).damaged == ()


@pytest.mark.parametrize("inodes", [True, False])
def test_an_environment_runs_from_a_full_disk_and_gc_leaves_it_meanwhile(
    tmp_path: Path, references: list[str], *, inodes: bool
) -> None:
    with disk(tmp_path / "disk", "size=2m,nr_inodes=60"):
        store = Store(str(tmp_path / "disk" / "store"))
        first = pull(references[0], store=store)
        fill(tmp_path / "disk", inodes=inodes)

        with leased(first.reference, store=store) as again:
            assert again.moved == 0
            freed = gc(store, keep_bytes=0, dry_run=True)
            assert (freed.layers, freed.bytes) == ((), 0)
            assert len(freed.in_use) == 1
        assert len(gc(store, keep_bytes=0, dry_run=True).layers) == 1


@pytest.mark.parametrize("inodes", [True, False])
@pytest.mark.parametrize("verb", ["pull", "export", "mount"])
def test_a_disk_that_runs_full_at_any_stage_loses_nothing_and_the_next_command_succeeds(
    tmp_path: Path, references: list[str], verb: str, *, inodes: bool
) -> None:
    place = tmp_path / "disk"
    target = str(place / "target")
    verbs: dict[str, Callable[[Store], object]] = {
        "pull": lambda store: pull(references[1], store=store),
        "export": lambda store: export(references[1], target, store=store),
        "mount": lambda store: mount(references[1], target, store=store, options=MountOptions(method="copies")),
    }
    full = 0
    # Before each folder of the store, between its layers, and after them.
    for limit in range(4, 108, 8):
        with disk(place, f"nr_inodes={limit}" if inodes else f"size={limit * 110}k"):
            store = Store(str(place / "store"))
            reason = ""
            try:
                verbs[verb](store)
            except LayersError as error:
                reason = str(error)
            if reason:
                full += 1
                assert re.search(r"full| free, ", reason)
                assert not os.path.lexists(target)
                gc(store)
            assert verify(store).damaged == ()
            subprocess.run([need("mount"), "-o", "remount,size=64m,nr_inodes=1000", place], check=True)
            if not os.path.lexists(target):
                verbs[verb](store)
            assert verify(store).damaged == ()
            assert verb == "pull" or (place / "target" / "small").stat().st_size == 50_000
    assert 0 < full < 13


@pytest.mark.parametrize("inodes", [True, False])
def test_gc_frees_layers_and_leftovers_of_a_crash_on_a_full_disk(tmp_path: Path, *, inodes: bool) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    made = [tars.layer(tars.tree({f"opt/env/p{number}.py": bytes(3000)})) for number in range(60)]
    publish_layers(layout, "env", made)
    with ext4(tmp_path / "disk", inodes=1000):
        store = Store(str(tmp_path / "disk" / "store"))
        pull(f"oci:{tmp_path}/layout:env", store=store)
        # A new folder has one block, which takes fewer names than there are layers; no document's block is freed first.
        shutil.rmtree(f"{store.path}/documents/sha256")
        os.rmdir(f"{store.path}/partial")
        os.mkdir(f"{store.path}/partial", 0o700)
        left = f"{store.path}/partial/{'0' * 64}-000000000000"
        shutil.copytree(store.folder(made[0][0].diff_id), left)
        fill(tmp_path / "disk", inodes=inodes)

        freed = gc(store, keep_bytes=0)

        assert len(freed.layers) == 60
        assert os.listdir(f"{store.path}/partial") == []


def test_a_disk_without_inodes_is_full(tmp_path: Path, references: list[str]) -> None:
    with disk(tmp_path / "disk", "size=8m,nr_inodes=25"):
        store = Store(str(tmp_path / "disk" / "store"))
        with pytest.raises(StoreError, match="is full"):
            pull(references[1], store=store)
        gc(store)
        assert os.listdir(f"{store.path}/partial") == []


def test_an_environment_that_announces_more_than_there_is_room_for_is_refused_before_it_is_fetched(
    tmp_path: Path,
) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    content = bytes(3 << 20)
    publish_layers(layout, "env", [tars.layer(tars.tree({"opt/env/zeros": content}), unpacked=len(content))])
    with disk(tmp_path / "disk", "size=2m"):
        store = Store(str(tmp_path / "disk" / "store"))
        with pytest.raises(StoreError, match=r": [\d.]+ MB free, the environment needs 3\.1 MB"):
            pull(f"oci:{tmp_path}/layout:env", store=store)
        assert list(store.layers()) == []


def test_a_read_only_disk_serves_its_layers_and_refuses_changes(tmp_path: Path, references: list[str]) -> None:
    with disk(tmp_path / "disk", "size=8m"):
        store = Store(str(tmp_path / "disk" / "store"))
        first = pull(references[0], store=store)
        subprocess.run([need("mount"), "-o", "remount,ro", tmp_path / "disk"], check=True)
        assert pull(first.reference, store=store).moved == 0
        with pytest.raises(StoreError, match=r"is on a read-only disk: choose another with LAMELLA_STORE"):
            pull(references[1], store=store)
        with pytest.raises(StoreError, match=r"is on a read-only disk"):
            gc(store, keep_bytes=0)
        with pytest.raises(StoreError, match=r"is on a read-only disk"):
            Store(str(tmp_path / "disk" / "another")).prepare()


def test_a_user_reads_roots_store_and_can_not_write_it(references: list[str]) -> None:
    need_root()
    with folder_of(0) as folder:
        store = Store(str(folder / "store"))
        # Also imports what the other user's process needs.
        first = pull(references[0], store=store)
        verify(store)
        layer = first.environment.layers[0].diff_id
        with pytest.raises(StoreError, match="can't be written by this user: choose another with LAMELLA_STORE"):
            as_user(NOBODY, lambda: gc(store, keep_bytes=0))
        assert as_user(NOBODY, lambda: pull(first.reference, store=store).moved) == 0
        assert as_user(NOBODY, lambda: verify(store).damaged) == ()
        assert store.has(layer)


def test_a_user_reads_what_root_pulled_with_a_closed_umask(references: list[str]) -> None:
    need_root()
    with folder_of(0) as folder:
        store = Store(str(folder / "store"))
        before = os.umask(0o077)
        try:
            first = pull(references[0], store=store)
        finally:
            os.umask(before)
        verify(store)
        assert as_user(NOBODY, lambda: pull(first.reference, store=store).moved) == 0
        assert as_user(NOBODY, lambda: verify(store).damaged) == ()


def test_layers_that_a_user_leases_in_roots_store_stay(references: list[str]) -> None:
    need_root()
    with folder_of(0) as folder:
        store = Store(str(folder / "store"))
        layers = [layer.diff_id for layer in pull(references[0], store=store).environment.layers]

        def lease_as_nobody() -> None:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with leases.lease(store, layers, "a user's command"):
                ready.write(b"x")
                ready.flush()
                done.read(1)

        reader, writer = os.pipe()
        waiting, ending = os.pipe()
        with (
            os.fdopen(writer, "wb") as ready,
            os.fdopen(waiting, "rb") as done,
            forked(lease_as_nobody) as child,
        ):
            # The child's alone: if it fails, the read ends.
            ready.close()
            assert os.read(reader, 1) == b"x"
            assert gc(store, keep_bytes=0).layers == ()
            os.write(ending, b"x")
            os.waitpid(child, 0)
        os.close(reader)
        os.close(ending)
        assert set(gc(store, keep_bytes=0).layers) == set(layers)


def test_a_folder_in_which_nothing_may_be_made(tmp_path: Path, references: list[str]) -> None:
    pull(references[0], store=Store(str(tmp_path / "imports")))
    with folder_of(0) as folder:
        store = Store(str(folder / "store"))
        with pytest.raises(StoreError, match="store can't be written by this user"):
            as_user(NOBODY, store.prepare)


def test_a_store_that_a_user_can_not_read_is_an_error_to_every_verb_that_lists_it(references: list[str]) -> None:
    need_root()
    with folder_of(0) as folder:
        store = Store(str(folder / "store"))
        pull(references[0], store=store)
        (folder / "store").chmod(0o700)
        for verb in (stored_environments, disk_usage, verify, gc):
            with pytest.raises(StoreError, match="store can't be read by this user: choose another with LAMELLA_STORE"):
                as_user(NOBODY, lambda verb=verb: verb(store))  # type: ignore[misc]


@pytest.fixture
def imposing(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files all have mode 0755, whatever is asked for."""
    need_root()
    (tmp_path / "behind").mkdir()
    folder = tmp_path / "imposing"
    folder.mkdir()
    program = [need("bindfs"), "--perms=0755", "--chmod-ignore", str(tmp_path / "behind"), str(folder)]
    if subprocess.run(program, check=False, capture_output=True).returncode:
        missing("bindfs can mount nothing: load the kernel's fuse module")
    yield folder
    subprocess.run([need("umount"), folder], check=True)


def test_a_disk_that_imposes_modes_is_named_before_anything_is_kept(imposing: Path, references: list[str]) -> None:
    store = Store(str(imposing / "store"))
    with pytest.raises(
        StoreError, match=r"store: its file system imposes modes: 0755 .*; set LAMELLA_STORE to another"
    ):
        pull(references[0], store=store)
    assert list(store.layers()) == []


def test_verify_takes_imposed_modes_for_no_damage(tmp_path: Path, imposing: Path, references: list[str]) -> None:
    """A store that was moved to such a disk, or that an earlier version made there."""
    made = Store(str(tmp_path / "made"))
    pull(references[0], store=made)
    shutil.copytree(made.path, tmp_path / "behind" / "store", symlinks=True)
    store = Store(str(imposing / "store"))
    assert verify(store).damaged == ()
    assert len(list(store.layers())) == 1


def test_modes_are_right_below_a_default_acl_and_a_setgid_folder(tmp_path: Path, references: list[str]) -> None:
    need_root()
    with disk(tmp_path / "disk", "size=8m"):
        folder = tmp_path / "disk" / "shared"
        folder.mkdir()
        folder.chmod(0o2755)
        # Version 2; all for the owner, user 1000, the group and the mask, and nothing for others.
        entries = ((0x01, 7, -1), (0x02, 7, 1000), (0x04, 7, -1), (0x10, 7, -1), (0x20, 0, -1))
        acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(folder, "system.posix_acl_default", acl)
        store = Store(str(folder / "store"))
        store.prepare()
        for name in ("partial", "layers"):
            os.setxattr(f"{store.path}/{name}", "system.posix_acl_default", acl)
        pull(references[1], store=store)
        assert verify(store).damaged == ()
