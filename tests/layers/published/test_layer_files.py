"""The files of published layers: from the store, else from the blob, and only of layers that a pull accepts."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent, NotFound, UnsafeLayer
from lamella.layers.layout import OciLayout
from lamella.layers.published.layer_files import LayerFile, layer_files
from lamella.layers.pulling.pull import pull
from lamella.layers.registry.repository import Registry
from lamella.layers.settings.trust import Trust
from lamella.layers.store.store import Store
from support import tars
from support.published import publish_layers
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.layers.oci.documents import Layer


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def alpha() -> tuple[Layer, bytes]:
    holds = json.dumps({"prefix": "/opt/env", "files": [{"path": "bin/run", "kind": "text"}]}).encode()
    return tars.layer(
        tars.folder(b"opt/env")
        + tars.file(b"opt/env/.lamella/relocate/pypi-alpha.json", holds)
        + tars.file(b"opt/env/bin/run", b"#!/opt/env/bin/python\n", 0o755)
        + tars.symlink(b"opt/env/bin/run2", b"run")
        + tars.file(b"opt/env/lib/a.pyc", b"\xa7\r\r\nrest")
        + tars.hardlink(b"opt/env/lib/b", b"opt/env/lib/a.pyc")
        + bytes(1024),
        package="alpha",
    )


@pytest.fixture
def reference(tmp_path: Path) -> str:
    storage = OciLayout(str(tmp_path / "layout"), create=True)
    publish_layers(storage, "v1", [alpha(), tars.layer(tars.tree({"opt/env/beta": b"b" * 2000}), package="beta")])
    return f"oci:{tmp_path}/layout:v1"


def test_files_and_links_are_listed_without_folders(reference: str, store: Store) -> None:
    one, two = layer_files(reference, store=store)
    assert [each.package.name for each in (one, two)] == ["alpha", "beta"]
    assert one.files[1:] == (
        LayerFile("bin/run", 22, executable=True),
        LayerFile("bin/run2", 0, executable=False, link="run"),
        LayerFile("lib/a.pyc", 8, executable=False),
        LayerFile("lib/b", 0, executable=False, link="lib/a.pyc"),
    )
    assert two.files == (LayerFile("beta", 2000, executable=False),)
    assert not os.path.exists(store.path), "nothing is kept"


def test_a_layer_in_the_store_is_read_there_with_the_same_result(reference: str, store: Store) -> None:
    for digests in (False, True):
        read = layer_files(reference, store=Store(f"{store.path}-none"), digests=digests)
        pull(reference, store=store)
        stored = layer_files(reference, store=store, digests=digests)
        assert [each.is_stored for each in (*read, *stored)] == [False, False, True, True]
        assert [each.files for each in stored] == [each.files for each in read]
    assert stored[0].magic == read[0].magic == "a70d0d0a"
    assert stored[0].files[1].digest == hashlib.sha256(b"#!/opt/env/bin/python\n").hexdigest()
    assert stored[0].files[1].neutral == hashlib.sha256(b"#!/bin/python\n").hexdigest()
    assert stored[0].files[3].neutral == ""


def test_a_layer_that_was_damaged_in_the_store_is_read_from_its_blob(reference: str, store: Store) -> None:
    pulled = pull(reference, store=store)
    for layer in pulled.environment.layers:
        with open(f"{store.folder(layer.diff_id)}/skeleton", "wb") as file:
            file.write(b"nonsense")
    assert [each.is_stored for each in layer_files(reference, store=store)] == [False, False]


def test_one_package_reads_one_layer(store: Store) -> None:
    with RegistrySimulator().serving() as simulator:
        registry = Registry(simulator.host, "team/envs")
        publish_layers(registry, "v1", [alpha(), tars.layer(tars.tree({"opt/env/beta": b"b"}), package="be-ta")])
        registry.close()
        simulator.requests.clear()
        (found,) = layer_files(f"{simulator.host}/team/envs:v1", "Be_Ta", store=store)
        digests = {path.rpartition("/")[2] for path in (each.path for each in simulator.asked("GET .*/blobs/"))}
        assert str(found.package.layer.descriptor.digest) in digests
        assert len(digests) == 2, "the config, and one layer"


def test_an_unknown_package_is_reported_with_a_similar_one(reference: str, store: Store) -> None:
    with pytest.raises(NotFound, match="no package alhpa; did you mean alpha"):
        layer_files(reference, "alhpa", store=store)
    with pytest.raises(NotFound, match="no package zzz; list them with lamella inspect --all oci:"):
        layer_files(reference, "zzz", store=store)


@pytest.mark.parametrize(
    ("tar", "error", "message"),
    [
        (tars.file(b"opt/env/../x") + bytes(1024), UnsafeLayer, "layer of bad "),
        (tars.file(b"opt/env/x", b"content")[:512] + bytes(1024), InvalidContent, "layer of bad "),
    ],
)
def test_a_layer_that_no_pull_takes_is_not_listed(
    tmp_path: Path, store: Store, tar: bytes, error: type[Exception], message: str
) -> None:
    storage = OciLayout(str(tmp_path / "bad"), create=True)
    publish_layers(storage, "v1", [tars.layer(tar, package="bad")])
    with pytest.raises(error, match=message):
        layer_files(f"oci:{tmp_path}/bad:v1", store=store)


def test_a_mirror_that_sends_other_bytes_is_passed_over(tmp_path: Path, store: Store) -> None:
    with RegistrySimulator().serving() as mirror, RegistrySimulator().serving() as simulator:
        registry = Registry(simulator.host, "team/envs")
        publish_layers(registry, "v1", [alpha()])
        registry.close()
        made = alpha()[0].descriptor
        mirror.blobs["team/envs"] = {str(made.digest): bytes(made.size)}
        mirror.faults.append(Fault("manifests", times=100, status=404))
        hosts = tmp_path / "hosts" / simulator.host
        hosts.mkdir(parents=True)
        (hosts / "hosts.toml").write_text(f'[host."http://{mirror.host}"]\ncapabilities = ["pull"]\n')
        trust = Trust(hosts_dir=str(tmp_path / "hosts"))
        (found,) = layer_files(f"{simulator.host}/team/envs:v1", store=store, trust=trust)
        assert len(found.files) == 5
        assert mirror.asked("GET .*/blobs/")
