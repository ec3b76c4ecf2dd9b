"""Waits for other processes: reported, and ended."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import StoreError
from lamella.layers.layout import OciLayout
from lamella.layers.mounting.claims import lock_name
from lamella.layers.mounting.mount import mount
from lamella.layers.pulling.pull import pull
from lamella.layers.store import leases, locks
from lamella.layers.store.incoming import claim
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from support import tars
from support.published import publish_layers

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def short_of_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    monkeypatch.setattr(locks, "_SILENT", 0.0)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    layers = [tars.layer(tars.tree({f"opt/env/{name}": b"x"}), package=name) for name in "ab"]
    publish_layers(OciLayout(str(tmp_path / "layout"), create=True), "env", layers)
    return f"oci:{tmp_path}/layout:env"


def test_a_wait_is_reported_and_ends_with_the_name_of_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = str(tmp_path / "lock")
    locks.acquire(path, "mount at /opt/env", "the lock")
    process = rf"process {os.getpid()} \(mount at /opt/env\)"
    with pytest.raises(StoreError, match=rf"^/opt/env: locked for 0\.\d+ s by {process}, without progress; end that"):
        locks.acquire(path, "another mount", "/opt/env")
    assert [re.fullmatch(rf"/opt/env: waiting for {process}", message) is not None for message in caplog.messages] == [
        True
    ]


@pytest.mark.slow
def test_a_wait_goes_on_as_long_as_the_other_process_makes_progress() -> None:
    tries = 0

    def attempt() -> bool | None:
        nonlocal tries
        tries += 1
        return True if tries == 20 else None

    # A sign of life each time: the wait takes longer than the patience with a process that shows none.
    assert locks.patiently(attempt, "x", lambda: ("process 1", tries))


def test_the_name_of_a_lock_can_not_control_a_terminal(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    locks.acquire(path, "mount at /\x1b[31m", "the lock")
    assert locks.holder(path)[0] == f"process {os.getpid()} (mount at /\\x1b[31m)"


@pytest.mark.parametrize("content", ["", "x", "\x1b 1 mount"])
def test_a_lock_that_a_full_disk_left_unsigned_has_an_unknown_holder(tmp_path: Path, content: str) -> None:
    (tmp_path / "lock").write_text(content)
    assert locks.holder(str(tmp_path / "lock"))[0] == "another process"


def test_a_pull_names_the_process_that_holds_its_layer_without_progress(tmp_path: Path, reference: str) -> None:
    store = Store(str(tmp_path / "store"))
    store.prepare()
    layers = pull(reference, store=store, dry_run=True).plan.fetch
    held = claim(store, layers[0].diff_id, "pull elsewhere")
    assert held is not None
    with pytest.raises(StoreError, match=rf"layer . .*: locked for .* by process {os.getpid()} \(pull elsewhere\)"):
        pull(reference, store=store)
    held.close()
    # The other layer came meanwhile, and stays.
    assert len(pull(reference, store=store).plan.fetch) == 1


def test_a_gc_names_the_process_that_runs_gc(tmp_path: Path, reference: str) -> None:
    store = Store(str(tmp_path / "store"))
    pull(reference, store=store)
    with (
        leases.paused(store, "gc --all"),
        pytest.raises(StoreError, match=rf"the store .*: locked for .* by process {os.getpid()} \(gc --all\)"),
    ):
        gc(store)
    assert locks.holder(f"{store.path}/lock")[0] == "another process"


def test_a_mount_names_the_process_that_mounts_at_its_target(tmp_path: Path, reference: str) -> None:
    store = Store(str(tmp_path / "store"))
    store.prepare()
    target = str(tmp_path / "target")
    path = f"{store.path}/locks/{lock_name(target)}"
    lock = locks.acquire(path, f"mount at {target}", target)
    with pytest.raises(StoreError, match=rf"{target}: locked for .* by process {os.getpid()} \(mount at {target}\)"):
        mount(reference, target, store=store)
    locks.release(lock, path)
