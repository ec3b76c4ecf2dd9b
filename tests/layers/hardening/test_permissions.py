"""Folders that other users can change, and what a user has to do about them."""

from __future__ import annotations

import ctypes
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import lamella.builder
import lamella.layers
from lamella.builder import CacheError, LayerCache, scan
from lamella.layers import (
    ExportError,
    ExportOptions,
    MountError,
    MountOptions,
    Silent,
    Store,
    StoreError,
    mount,
)
from lamella.layers.exporting.target import target_of
from lamella.layers.exporting.write import write
from lamella.layers.hardening import permissions
from lamella.layers.hardening.permissions import make_folder, make_folders, make_part, stranger
from support.engines import need, need_root
from support.people import NOBODY, as_user, folder_of
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DAEMON = 1
"""A user with a group of its own, as Linux distributions make them."""


def reason(path: Path | str) -> str:
    found = stranger(str(path))
    return str(found) if found else ""


def made(path: Path, mode: int = 0o755, user: int = -1, group: int = -1) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    os.chown(path, user, group)
    path.chmod(mode)
    return path


@pytest.fixture
def open_to_all() -> Iterator[Path]:
    """A folder that every user can reach."""
    with folder_of(os.geteuid()) as folder:
        yield folder


def test_a_folder_of_one_s_own_is_private(tmp_path: Path) -> None:
    assert reason(tmp_path) == reason(tmp_path / "missing" / "too") == reason("/") == ""


@pytest.mark.parametrize("below", ["", "store", "store/missing"])
def test_a_folder_that_every_user_can_write_is_private_after_the_remedy(tmp_path: Path, below: str) -> None:
    folder = made(tmp_path / "shared", 0o757)
    made(folder / "store")
    found = stranger(str(folder / below))
    assert found
    assert str(found) == f"every user can write {folder}"
    assert found.remedy == f"chmod o-w {folder}"
    subprocess.run(shlex.split(found.remedy), check=True)
    assert reason(folder / below) == ""


def test_a_sticky_folder_is_safe_only_above_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = made(tmp_path / "tmp", 0o1777)
    assert reason(folder / "store") == reason(made(folder / "store")) == ""
    assert reason(folder) == f"every user can write {folder}"


def test_no_advice_closes_a_folder_that_other_programs_share(tmp_path: Path) -> None:
    found = stranger(str(made(tmp_path / "tmp", 0o1777)))
    assert found
    assert not found.remedy
    assert found.advice("another store") == "choose a folder in it, or another store"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/store"])
def test_no_advice_closes_a_device_in_place_of_a_store(path: str) -> None:
    assert stranger(path) is None
    with pytest.raises(StoreError, match=f"^the store {path} is not a folder, or has a file in place of a folder"):
        Store(path).prepare()


def test_a_remedy_can_be_typed_for_a_folder_with_spaces(tmp_path: Path) -> None:
    found = stranger(str(made(tmp_path / "my own", 0o777)))
    assert found
    subprocess.run(shlex.split(found.remedy), check=True)
    assert reason(tmp_path / "my own") == ""


@pytest.mark.root
def test_another_user_s_folder_or_link_is_not_private(tmp_path: Path) -> None:
    need_root()
    theirs = made(tmp_path / "theirs", user=DAEMON)
    mine = made(theirs / "mine", user=0)
    assert reason(theirs) == reason(mine) == f"its owner, user daemon, can write {theirs}"
    sticky = made(tmp_path / "tmp", 0o1777)
    (sticky / "link").symlink_to(made(tmp_path / "store"))
    assert reason(sticky / "link" / "x") == ""
    os.chown(sticky / "link", DAEMON, DAEMON, follow_symlinks=False)
    assert reason(sticky / "link" / "x") == f"its owner, user daemon, can write {sticky}/link"
    (tmp_path / "away").symlink_to(theirs / "mine")
    assert reason(tmp_path / "away") == f"its owner, user daemon, can write {theirs}"
    (tmp_path / "relative").symlink_to("tmp/../theirs")
    assert reason(tmp_path / "relative") == f"its owner, user daemon, can write {theirs}"


@pytest.mark.root
def test_root_s_folder_is_private_for_every_user(open_to_all: Path) -> None:
    need_root()
    store = made(open_to_all / "store")
    assert as_user(NOBODY, lambda: reason(store)) == ""


@pytest.mark.root
def test_a_user_s_own_group_may_write_and_another_may_not(open_to_all: Path) -> None:
    need_root()
    home = made(open_to_all / "daemon", 0o775, DAEMON, DAEMON)
    assert as_user(DAEMON, lambda: reason(home)) == ""
    # Several users have nogroup.
    shared = made(open_to_all / "shared", 0o2775, NOBODY, NOBODY)
    assert as_user(NOBODY, lambda: reason(shared)) == f"group nogroup can write {shared}"
    lab = made(open_to_all / "lab", 0o2770, 0, DAEMON)
    assert reason(lab) == f"group daemon can write {lab}"
    assert reason(made(open_to_all / "root", 0o775, 0, 0)) == ""


@pytest.mark.root
def test_a_group_without_a_name_is_a_pod_s_if_this_process_has_it(open_to_all: Path) -> None:
    need_root()
    volume = made(open_to_all / "volume", 0o2770, 0, 54321)
    assert as_user(54321, lambda: reason(volume)) == ""
    assert reason(volume) == f"group 54321 can write {volume}"


@pytest.mark.root
def test_an_access_list_s_users_and_groups_count(open_to_all: Path) -> None:
    need_root()

    def listed(*entries: tuple[int, int, int]) -> Path:
        folder = made(open_to_all / "listed", 0o750)
        everyone = 0xFFFFFFFF
        rows = [(0x01, 7, everyone), (0x04, 5, everyone), *entries, (0x10, 7, everyone), (0x20, 5, everyone)]
        packed = b"".join(struct.pack("<HHI", *row) for row in sorted(rows))
        os.setxattr(folder, "system.posix_acl_access", struct.pack("<I", 2) + packed)
        return folder

    assert reason(listed((0x02, 5, DAEMON))) == ""
    folder = listed((0x02, 7, DAEMON))
    assert reason(folder) == f"user daemon can write {folder}"
    assert reason(listed((0x08, 7, DAEMON))) == f"group daemon can write {folder}"


@pytest.mark.root
def test_in_a_container_the_pod_decides_who_mounts_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    volume = made(tmp_path / "a volume")
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", "mode=0777", "none", volume], check=True)
    try:
        assert reason(volume) == reason(volume / "store") == f"every user can write {volume}"
        monkeypatch.setattr(permissions, "HOST_PROCESSES", 0)
        assert reason(volume) == reason(made(volume / "store", 0o777)) == ""
        # An image's own folders are not volumes, and another user's are private nowhere.
        assert reason(made(tmp_path / "a volume2", 0o777)) != ""
        assert reason(made(volume / "theirs", user=DAEMON)) != ""
    finally:
        subprocess.run([need("umount"), volume], check=True)


@pytest.mark.root
def test_in_a_user_namespace_root_s_folders_are_private(open_to_all: Path) -> None:
    need_root()
    folder = made(open_to_all / "folder", user=DAEMON)

    def seen() -> str:
        new_user_namespace = 0x10000000
        assert ctypes.CDLL(None).unshare(new_user_namespace) == 0
        # As `run` does: this user has its number, and root's folders appear to be the overflow user's.
        Path("/proc/self/uid_map").write_text(f"{DAEMON} {DAEMON} 1")
        assert Path("/").stat().st_uid == NOBODY
        return reason(folder)

    assert as_user(DAEMON, seen) == ""


@pytest.mark.parametrize("place", ["store", "folder above it"])
def test_a_store_that_others_can_write_is_not_used(place: str, tmp_path: Path) -> None:
    reference = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    above = made(tmp_path / "above")
    store = Store(str(above / "store"))
    lamella.layers.pull(reference, store=store)
    target = str(tmp_path / "target")
    mounted = lamella.layers.mount(
        reference, target, options=lamella.layers.MountOptions(method="hardlinks"), store=store
    )
    changed = Path(store.path) if place == "store" else above
    mode = changed.stat().st_mode
    changed.chmod(0o777)
    uses: tuple[Callable[[], object], ...] = (
        lambda: lamella.layers.pull(reference, store=store),
        lambda: lamella.layers.run(reference, ["true"], store=store),
        lambda: lamella.layers.mount(reference, f"{target}2", store=store),
        lambda: lamella.layers.export(reference, str(tmp_path / "copy"), store=store),
    )
    for use in uses:
        with pytest.raises(StoreError) as caught:
            use()
        assert str(caught.value) == (
            f"the store {store.path}: every user can write {changed}; chmod o-w {changed}, or choose another store "
            "with LAMELLA_STORE"
        )
    # Nothing of it runs if it is checked or taken away.
    assert lamella.layers.umount(target, store=store) == mounted
    assert lamella.layers.verify(store).layers == 1
    lamella.layers.gc(store, keep_bytes=0)
    changed.chmod(mode)
    lamella.layers.pull(reference, store=store)


def test_a_cache_that_others_can_write_is_not_used(tmp_path: Path) -> None:
    cache = made(tmp_path / "cache", 0o777)
    message = (
        rf"^the cache {cache}: every user can write {cache}; chmod o-w {cache}, or choose another cache with LAMELLA"
    )
    with pytest.raises(CacheError, match=message):
        LayerCache(str(cache))
    with pytest.raises(CacheError, match=message):
        scan(sys.prefix, lamella.builder.ScanOptions(cache=str(cache)))


def test_only_parts_of_a_store_or_cache_are_shared_in_a_shared_folder(tmp_path: Path) -> None:
    """A mount's changes in a project's folder, whose group adds to it, stay closed to that group."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o2775)
    make_folder(str(shared / "changes"))
    make_folders(str(shared / "cache/layers/blobs"))
    make_part(str(shared / "partial"), 0o700)
    modes = {name: (shared / name).stat().st_mode & 0o777 for name in ("changes", "cache/layers/blobs", "partial")}
    assert modes == {"changes": 0o755, "cache/layers/blobs": 0o775, "partial": 0o770}


@pytest.mark.root
def test_a_mount_in_another_users_folder_names_the_next_step(open_to_all: Path) -> None:
    reference = publish(open_to_all / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    links = MountOptions(method="hardlinks")
    with folder_of(NOBODY) as own:
        store = Store(str(own / "store"))
        as_user(NOBODY, lambda: mount(reference, str(own / "env"), options=links, store=store))
        with pytest.raises(MountError, match=r"cannot create \S+/env: Permission denied; mount at a folder"):
            as_user(NOBODY, lambda: mount(reference, f"{open_to_all}/env", options=links, store=store))


@pytest.mark.root
def test_an_export_to_another_users_folder_names_the_next_step(open_to_all: Path) -> None:
    # An export of nothing, since the child can't read the module that each export brings.
    target = target_of(f"{open_to_all}/env.tar", ExportOptions())
    with pytest.raises(ExportError, match=r"env\.tar can't be written: Permission denied: export to a"):
        as_user(NOBODY, lambda: write(target, [], 0, Silent()))
