"""A store of root, and users who would stop it or empty it."""

from __future__ import annotations

import fcntl
import os
import select
import struct
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.pulling.pull import leased, pull
from lamella.layers.store import leases, locks
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify
from support import tars
from support.engines import need_root
from support.people import NOBODY, as_user, become, folder_of, while_user
from support.processes import forked
from support.published import publish_layers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of root that others can read. A wait for a lock of theirs fails the test soon."""
    need_root()
    monkeypatch.setattr(locks, "PATIENCE", 2.0)
    with folder_of(0) as folder:
        yield Store(str(folder / "store"))


@pytest.fixture
def reference(tmp_path: Path) -> str:
    layers = [tars.layer(tars.tree({f"opt/env/{name}": name.encode() * 1000}), package=name) for name in "abc"]
    publish_layers(OciLayout(str(tmp_path / "layout"), create=True), "env", layers)
    return f"oci:{tmp_path}/layout:env"


def open_all(path: str) -> list[int]:
    """All files and folders of a store that this user can open."""
    found = []
    for here, folders, names in os.walk(path):
        for name in (".", *folders, *names):
            with suppress(OSError):
                found.append(os.open(os.path.join(here, name), os.O_RDONLY | os.O_NONBLOCK))
    return found


def flock_all(path: str) -> list[int]:
    """Take every flock(2) of a store that this user can take."""
    files = open_all(path)
    for file in files:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return files


def share_all(path: str) -> list[int]:
    """Lock all bytes of every file of a store for reading, which is all that this user can do to a range."""
    files = open_all(path)
    for file in files:
        for kind in (fcntl.F_WRLCK, fcntl.F_RDLCK):
            with suppress(OSError):
                fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack("@hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))
    return files


def test_every_flock_that_a_user_can_take_stops_nothing(store: Store, reference: str) -> None:
    layers = {layer.diff_id for layer in pull(reference, store=store).environment.layers}
    with while_user(NOBODY, lambda: flock_all(store.path)):
        with leased(reference, store=store):
            assert gc(store, keep_bytes=0).layers == ()
        assert verify(store).damaged == ()
        freed = gc(store, keep_bytes=0)
        assert (set(freed.layers), freed.in_use) == (layers, ())
        assert pull(reference, store=store).moved > 0


def test_a_lock_of_ranges_keeps_layers_and_names_its_process(store: Store, reference: str) -> None:
    layers = {layer.diff_id for layer in pull(reference, store=store).environment.layers}
    with while_user(NOBODY, lambda: share_all(store.path)) as child:
        with leased(reference, store=store):
            assert gc(store, keep_bytes=0).layers == ()
        freed = gc(store, keep_bytes=0)
        assert (freed.layers, freed.in_use) == ((), (f"process {child} of user nobody",))
        assert verify(store).damaged == ()
    assert set(gc(store, keep_bytes=0).layers) == layers


def test_a_users_lease_of_everything_keeps_it_and_names_its_process(store: Store, reference: str) -> None:
    keeps = pull(reference, store=store).keeps

    def lease() -> object:
        context = leases.lease(store, keeps, "run \x1b[31m")
        context.__enter__()
        return context

    with while_user(NOBODY, lease) as child:
        freed = gc(store, keep_bytes=0)
    assert (freed.layers, freed.in_use) == ((), (f"run \\x1b[31m (process {child} of user nobody)",))


def test_a_user_can_not_open_the_locks_of_a_store_that_an_earlier_version_made(store: Store, reference: str) -> None:
    pull(reference, store=store)
    os.chmod(f"{store.path}/locks", 0o755)
    pull(reference, store=store)
    with pytest.raises(PermissionError):
        as_user(NOBODY, lambda: os.listdir(f"{store.path}/locks"))


def test_a_users_lease_begins_after_gc_has_decided(store: Store, reference: str) -> None:
    pulled = pull(reference, store=store)
    reader, writer = os.pipe()

    def lease() -> None:
        become(NOBODY)
        with leases.lease(store, pulled.keeps, "a user's command"):
            os.write(writer, b"x" if store.present(pulled.keeps) else b"-")

    with ExitStack() as stack:
        with leases.paused(store, "gc"):
            child = stack.enter_context(forked(lease))
            os.close(writer)
            # Its lease is written, and waits.
            while not os.listdir(f"{store.path}/leases"):
                assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child failed"
            assert select.select([reader], [], [], 0.2)[0] == []
            for layer in pulled.environment.layers:
                os.rename(store.folder(layer.diff_id), f"{store.path}/partial/trash-{layer.diff_id.hex}")
        assert os.read(reader, 1) == b"-"


def test_a_users_lease_waits_for_gc_no_longer_than_it_makes_progress(
    store: Store, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeps = pull(reference, store=store).keeps
    monkeypatch.setattr(locks, "PATIENCE", 0.1)

    def lease() -> None:
        with leases.lease(store, keeps, "a user's command"):
            pass

    with (
        leases.paused(store, "gc"),
        pytest.raises(
            StoreError, match=rf"the store .*: locked for .* by process {os.getpid()} \(gc\), without progress"
        ),
    ):
        as_user(NOBODY, lease)
    assert os.listdir(f"{store.path}/leases") == []
