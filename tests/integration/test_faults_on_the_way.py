"""From a layout through a registry into a store, with faults on the way: right files or a clear error, and no half of either."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import LayersError
from lamella.layers.published.copy import copy
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support.published import publish
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES: list[dict[str, str | bytes]] = [
    {"lib/large/data.bin": os.urandom(2_000_000), "lib/large/__init__.py": "n = 1\n"},
    {"lib/small/__init__.py": "n = 2\n", "bin/small*": "#!/bin/sh\n"},
    {"lib/none/__init__.py": ""},
]


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


def passing(chance: random.Random) -> list[Fault]:
    """A few faults that end by themselves."""
    kinds = [
        Fault("GET .*/blobs/", status=503),
        Fault("GET .*/blobs/", cut=chance.randrange(1_000_000)),
        Fault("GET .*/blobs/", cut=chance.randrange(1_000_000), reset=True),
        Fault("GET .*/manifests/", status=429),
        Fault("GET .*/manifests/", cut=10),
        Fault("HEAD", status=502),
        Fault("POST", status=500),
        Fault("POST", lost=True),
        Fault("PUT .*/blobs/", take=chance.randrange(1_000_000), reset=True),
        Fault("PUT .*/blobs/", lost=True),
        Fault("PUT .*/blobs/", status=404),
        Fault("PUT .*/manifests/", lost=True),
        Fault("PUT .*/manifests/", status=504),
    ]
    return chance.sample(kinds, 4)


@pytest.mark.parametrize("seed", range(8))
def test_passing_faults_leave_no_trace(tmp_path: Path, simulator: RegistrySimulator, seed: int) -> None:
    chance = random.Random(seed)
    simulator.ranges = chance.random() < 0.7
    simulator.faults = passing(chance)
    copied = copy(publish(tmp_path / "layout", FILES), f"{simulator.host}/team/envs:v1")
    simulator.faults = passing(chance)
    store = Store(str(tmp_path / "store"))
    pulled = pull(copied.reference, store=store)
    for layer, files in zip(pulled.environment.layers, FILES, strict=True):
        for name, content in files.items():
            path = os.path.join(store.layer_path(layer.diff_id), "opt/env", name.rstrip("*"))
            with open(path, "rb") as file:
                assert file.read() == (content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("GET .*/blobs/", 9, 403), "denies"),
        (Fault("GET .*/blobs/", 9, 404), "its config is lost .*; restore it from the environment with lamella push"),
        (
            Fault("GET .*/blobs/", 9, 200, {"Content-Type": "text/html"}, b"<html>"),
            "a proxy or a login page in between",
        ),
        (Fault("GET .*/blobs/", 9, body=b"x" * 5), "which should have"),
        (Fault("GET .*/manifests/", 9, headers={"Content-Type": "text/plain"}), "for the manifest"),
        (Fault("GET .*/manifests/", 9, body=b"[]"), "instead of|is not a JSON object"),
    ],
    ids=["denied", "gone", "proxy", "short", "type", "other"],
)
def test_lasting_fault_is_one_sentence_and_leaves_no_partial_layer(
    tmp_path: Path, simulator: RegistrySimulator, fault: Fault, message: str
) -> None:
    copied = copy(publish(tmp_path / "layout", FILES), f"{simulator.host}/team/envs:v1")
    simulator.faults = [fault]
    store = Store(str(tmp_path / "store"))
    with pytest.raises(LayersError, match=message) as caught:
        pull(copied.reference, store=store)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store" / "partial").exists() or not os.listdir(tmp_path / "store" / "partial")
    fault.times = 0
    pulled = pull(copied.reference, store=store)
    assert all(store.has(layer.diff_id) for layer in pulled.environment.layers)
