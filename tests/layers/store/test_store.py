from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import StoreError
from lamella.layers.oci.documents import Digest
from lamella.layers.store import leases, locks
from lamella.layers.store.incoming import claim
from lamella.layers.store.leases import kept
from lamella.layers.store.store import Store, default_path
from support.engines import need_root
from support.processes import started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(str(tmp_path / "store"))
    made.prepare()
    return made


@contextmanager
def leasing(store: Store, then: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has leased ONE, and then runs some Python that says `leased`."""
    program = f"""
import os, sys
from lamella.layers.oci.documents import Digest
from lamella.layers.store.leases import lease as leasing
from lamella.layers.store.store import Store
with leasing(Store({store.path!r}), [Digest.of(b"one")], "a test") as lease:
    {then}
"""
    with started([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "leased\n"
        yield process


class TestWhere:
    def test_lamella_store_goes_first(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LAMELLA_STORE", "/srv/store")
        assert default_path() == Store().path == "/srv/store"

    def test_root_has_var_lib(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        assert default_path() == "/var/lib/lamella"

    def test_a_user_has_the_cache_folder(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        monkeypatch.setenv("XDG_CACHE_HOME", "/home/ada/caches")
        assert default_path() == "/home/ada/caches/lamella/store"
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setenv("HOME", "/home/ada")
        assert default_path() == "/home/ada/.cache/lamella/store"

    def test_nothing_is_made_before_something_is_written(self, tmp_path: Path) -> None:
        store = Store(str(tmp_path / "store"))
        assert not store.has(ONE)
        assert list(store.layers()) == []
        assert store.size(ONE) == 0
        leases.release(store, "nothing")
        assert not (tmp_path / "store").exists()

    @pytest.mark.root
    def test_layers_of_root_are_for_everybody_and_unfinished_ones_are_private(self, store: Store) -> None:
        need_root()
        modes = {name: stat.S_IMODE(os.stat(f"{store.path}/{name}").st_mode) for name in os.listdir(store.path)}
        assert modes["layers"] == modes["documents"] == modes["holds"] == 0o755
        assert modes["partial"] == 0o700
        assert modes["leases"] == 0o1777

    def test_other_files_are_not_taken_for_layers(self, store: Store) -> None:
        os.makedirs(f"{store.path}/layers/sha256/lost+found")
        os.makedirs(f"{store.path}/layers/md5/{'0' * 32}")
        assert list(store.layers()) == []


class TestErrors:
    def test_a_file_in_the_stores_place(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_text("")
        with pytest.raises(StoreError, match=r"store is not a folder, or has a file .* set LAMELLA_STORE"):
            Store(str(tmp_path / "store")).prepare()

    @pytest.mark.parametrize("name", ["", ".hidden", "a/b", "..", "a\0b"])
    def test_a_hold_has_the_name_of_a_file(self, store: Store, name: str) -> None:
        with pytest.raises(StoreError, match="invalid name of a hold"):
            leases.hold(store, name, [ONE])


class TestLeases:
    def test_a_lease_lasts_as_long_as_its_block(self, store: Store) -> None:
        with leases.lease(store, [ONE, TWO], "a test"):
            assert kept(store).keys() == {ONE, TWO}
        assert kept(store) == {}
        assert os.listdir(f"{store.path}/leases") == []

    def test_a_lease_ends_with_its_process(self, store: Store) -> None:
        with leasing(store, "print('leased', flush=True); sys.stdin.read()") as process:
            assert kept(store).keys() == {ONE}
            process.kill()
            process.wait()
            assert len(os.listdir(f"{store.path}/leases")) == 1
            assert kept(store) == {}
            assert os.listdir(f"{store.path}/leases") == []

    def test_a_lease_goes_on_in_the_command_that_its_process_becomes(self, store: Store) -> None:
        become = "os.set_inheritable(lease, True); os.execlp('sh', 'sh', '-c', 'echo leased; cat')"
        with leasing(store, become) as process:
            assert kept(store).keys() == {ONE}
            assert process.stdin is not None
            process.stdin.close()
            process.wait()
            assert kept(store) == {}

    def test_two_leases_of_one_layer_are_independent(self, store: Store) -> None:
        with leases.lease(store, [ONE], "first"):
            with leases.lease(store, [ONE, TWO], "second"):
                pass
            assert kept(store).keys() == {ONE}

    def test_a_hold_lasts_until_it_is_released(self, store: Store) -> None:
        leases.hold(store, "mount-1", [ONE])
        leases.hold(store, "mount-2", [TWO])
        assert kept(Store(store.path)).keys() == {ONE, TWO}
        leases.release(store, "mount-1")
        assert kept(store).keys() == {TWO}

    def test_a_second_hold_of_one_name_replaces_the_first(self, store: Store) -> None:
        leases.hold(store, "mount", [ONE])
        leases.hold(store, "mount", [TWO])
        assert kept(store).keys() == {TWO}

    def test_what_other_users_put_among_the_leases_does_no_harm(self, store: Store, tmp_path: Path) -> None:
        leases = f"{store.path}/leases"
        os.mkfifo(f"{leases}/fifo")
        os.symlink(tmp_path / "canary", f"{leases}/link")
        (tmp_path / "canary").write_text(str(ONE))
        os.mkdir(f"{leases}/folder")
        with open(f"{leases}/garbage", "wb") as garbage:
            garbage.write(b"\xff\n../../etc\nsha256:short\n" + str(TWO).encode())
            garbage.flush()
            fcntl.flock(garbage, fcntl.LOCK_EX)
            assert kept(store).keys() == {TWO}
        assert (tmp_path / "canary").exists()


class TestLocks:
    def test_a_lock_is_held_by_one_process_and_refused_to_others(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        mine = locks.acquire(path, "a test", "the lock")
        assert locks.try_acquire(path, "another") is None
        locks.release(mine, path)
        assert not os.path.exists(path)

    def test_many_who_wait_get_it_one_after_another(self, tmp_path: Path) -> None:
        path = str(tmp_path / "lock")
        inside = 0
        most = 0

        def work() -> None:
            nonlocal inside, most
            for _ in range(30):
                lock = locks.acquire(path, "a test", "the lock")
                inside += 1
                most = max(most, inside)
                inside -= 1
                locks.release(lock, path)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1
        assert not os.path.exists(path)

    def test_a_claim_is_one_process_own(self, store: Store) -> None:
        first = claim(store, ONE)
        assert first is not None
        assert claim(store, ONE) is None
        other = claim(store, TWO)
        assert other is not None
        other.close()
        first.close()
        again = claim(store, ONE)
        assert again is not None
        again.close()

    def test_a_claim_removes_what_a_crash_left_and_no_process_writes(self, store: Store) -> None:
        abandoned = f"{store.path}/partial/{ONE.hex}-000000000000"
        living = f"{store.path}/partial/{ONE.hex}-111111111111"
        os.makedirs(f"{abandoned}/tree/opt")
        os.makedirs(f"{living}/tree/opt")
        writer = os.open(living, os.O_RDONLY)
        fcntl.flock(writer, fcntl.LOCK_SH)
        claimed = claim(store, ONE)
        assert claimed is not None
        claimed.close()
        os.close(writer)
        assert os.listdir(f"{store.path}/partial") == [os.path.basename(living)]


def test_a_store_that_is_just_being_made_is_its_maker_s(tmp_path: Path) -> None:
    """Another process has made its folder and nothing in it yet: it does not belong to another user."""
    (tmp_path / "store").mkdir()
    store = Store(str(tmp_path / "store"))
    assert store.writable().path == store.path
