from __future__ import annotations

import os
import signal
from contextlib import closing
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError, Unreachable, UnsafeLayer
from lamella.layers.oci.documents import LAYER_TAR
from lamella.layers.pulling.worker import Worker
from lamella.layers.store.incoming import receive
from support import tars

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def worker() -> Iterator[Worker]:
    with closing(Worker()) as started:
        yield started


class Resetting(BytesIO):
    """A connection that is lost for good after its first megabyte."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise Unreachable("the registry does not answer")
        return super().read(size)


@pytest.mark.slow
def test_unpacks_layer_after_layer_as_this_process_would(worker: Worker, tmp_path: Path) -> None:
    for number in range(3):
        layer, blob = tars.layer(tars.tree({"opt/env/data": os.urandom(100_000), "opt/env/bin/run*": b"#!"}))
        here, there = str(tmp_path / f"here{number}"), str(tmp_path / f"there{number}")
        assert worker.receive(BytesIO(blob), layer, there) == receive(BytesIO(blob), layer, here)
        assert tars.snapshot(there) == tars.snapshot(here)


def test_a_refusal_is_the_same_error(worker: Worker, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.file(b"../evil", b"x") + tars.END)
    with pytest.raises(UnsafeLayer, match=r"cannot unpack layer demo 1\.0 \(sha256:[0-9a-f]{12}\): '\.\./evil'"):
        worker.receive(BytesIO(blob), layer, str(tmp_path / "layer"))


@pytest.mark.slow
def test_another_process_takes_over_after_an_error(worker: Worker, tmp_path: Path) -> None:
    bad, blob = tars.layer(tars.file(b"../evil", b"x") + tars.END)
    with pytest.raises(UnsafeLayer):
        worker.receive(BytesIO(blob), bad, str(tmp_path / "bad"))
    good, blob = tars.layer(tars.tree({"opt/env/a": b"a"}))
    assert worker.receive(BytesIO(blob), good, str(tmp_path / "good")).entries == 3


def test_a_layer_refused_at_its_beginning_is_not_sent_to_its_end(worker: Worker, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.file(b"../evil", bytes(8 << 20)) + tars.END, LAYER_TAR)
    with pytest.raises(UnsafeLayer, match="leaves its folder"):
        worker.receive(BytesIO(blob), layer, str(tmp_path / "layer"))


def test_refusal_of_the_file_system_is_the_same_error(worker: Worker, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.tree({"opt/env/a": b"a"}))
    with pytest.raises(FileNotFoundError, match="missing/layer"):
        worker.receive(BytesIO(blob), layer, str(tmp_path / "missing" / "layer"))


def test_a_broken_connection_ends_the_worker_before_anything_is_cleaned_up(worker: Worker, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.file(b"large", bytes(8 << 20)) + tars.END, LAYER_TAR)
    with pytest.raises(Unreachable):
        worker.receive(Resetting(blob), layer, str(tmp_path / "layer"))
    assert worker.exit_code == -signal.SIGKILL


def test_a_worker_that_was_killed_is_a_sentence(worker: Worker, tmp_path: Path) -> None:
    layer, blob = tars.layer(tars.tree({"opt/env/a": b"a"}))
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(
        LayersError, match=r"the process that unpacked demo 1\.0 .* exited with -9; check for a lack of memory"
    ):
        worker.receive(BytesIO(blob), layer, str(tmp_path / "layer"))
