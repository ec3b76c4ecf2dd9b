"""The pods of docs/how-to/kubernetes.md run as `inject` writes them, images' names aside."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from lamella.builder import InjectOptions, inject
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from support.distribution import PASSWORD, USER, distribution
from support.installed import two_versions
from support.pods import DEBIAN, NODE, ROOT, blocks, emptied, pod_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.kubernetes.options import InjectionMethod
    from support.pods import Node

pytestmark = [pytest.mark.engine, pytest.mark.root]

POD, INJECTED, CLEANER = blocks(ROOT / "docs/how-to/kubernetes.md")
DOCUMENTED = "registry.example.com/team/envs:v1@sha256:797bf2ab5502bb9455ff9e9376d02bdb5bfaca132cf63c16cc43ef98d2ace405"
STORE = "/var/lib/lamella"
NODE_IMAGE = "registry.example.com/team/node:0.1.0"


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two environments that differ in one package: what their pods print, and the prefix."""
    return two_versions(tmp_path_factory.mktemp("environments"), "numpy")


@pytest.fixture(scope="module")
def pushed(registry: str, environments: dict[str, Path], shared: Path) -> dict[str, str]:
    """References, with digests, by what their pods print."""
    cache = LayerCache(str(shared / "cache"))
    return {
        version: push(f"{registry}/team/envs:v{version[0]}", str(prefix), cache=cache).reference
        for version, prefix in environments.items()
    }


@pytest.fixture
def machine(kubelet: Node) -> Iterator[Node]:
    """A node without a store and without pods."""
    with emptied(kubelet, "var"):
        yield kubelet


def here(manifest: str) -> str:
    """A manifest of the guide with the images that are here."""
    images = {"debian:bookworm-slim": DEBIAN, NODE_IMAGE: NODE}
    for documented, image in images.items():
        manifest = re.sub(f"image: {documented}", f"image: {image}", manifest)
    return manifest


def injected(reference: str, method: InjectionMethod = "init", *, node_store: str = "", glibc: str = "") -> str:
    """The guide's pod with an environment."""
    options = InjectOptions(reference, method=method, image=NODE, node_store=node_store, glibc=glibc)
    return inject(here(POD), options).text


def in_store(reference: str) -> str:
    """The guide's pod with an environment and a store on the node."""
    return injected(reference, node_store=STORE)


def log_folder(machine: Node, name: str, uid: str) -> Path:
    """What a kubelet makes before a pod's first container."""
    folder = machine.folder / f"var/log/pods/default_{name}_{uid}"
    folder.mkdir(parents=True)
    return folder


def test_the_guide_shows_what_inject_writes() -> None:
    options = InjectOptions(DOCUMENTED, image=NODE_IMAGE, architectures=("amd64",), glibc="2.36")

    assert inject(POD, options).text == INJECTED


@pytest.mark.parametrize(("method", "store"), [("image-volume", ""), ("init", ""), ("init", STORE)])
def test_each_pod_of_the_guide_runs_without_python_on_the_machine(
    method: InjectionMethod, store: str, machine: Node, pushed: dict[str, str]
) -> None:
    said = machine.run(injected(pushed["1.0"], method, node_store=store, glibc="2.2"), "train", "0000-1")

    assert said.logs["main"] == "1.0\n", said
    assert said.logs["lamella-check"] == ""


@pytest.mark.parametrize("method", ["image-volume", "init"])
def test_a_pod_whose_image_has_an_older_glibc_fails_in_one_sentence_before_its_containers(
    method: InjectionMethod, machine: Node, pushed: dict[str, str]
) -> None:
    said = machine.run(injected(pushed["1.0"], method, glibc="99.1"), "train", "0000-1")

    assert "Error: no such container" in said.logs["main"] or said.logs["main"] == "", said
    assert re.fullmatch(
        r"lamella: this image has glibc 2\.\d+, and the environment needs 99\.1; use a newer image\n",
        said.logs["lamella-check"],
    ), said


def test_a_runtime_that_ignores_the_sub_path_of_an_image_volume_is_found(machine: Node, pushed: dict[str, str]) -> None:
    manifest = re.sub(r"\n +subPath: opt/env", "", injected(pushed["1.0"], "image-volume"))

    said = machine.run(manifest, "train", "0000-1")

    assert said.logs["lamella-check"].startswith("lamella: /opt/env/bin/python: missing in the image volume"), said
    assert said.logs["lamella-check"].count("\n") == 1
    assert said.logs["main"] != "1.0\n"


def test_pods_that_start_at_once_share_a_store_and_each_has_its_environment(
    machine: Node, pushed: dict[str, str]
) -> None:
    wanted = {"one": "1.0", "same": "1.0", "other": "2.0"}
    said = {}

    def start(name: str, version: str) -> None:
        said[name] = machine.run(in_store(pushed[version]), name, f"uid-of-{name}")

    threads = [threading.Thread(target=start, args=each) for each in wanted.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {name: each.logs["main"] for name, each in said.items()} == {
        name: f"{version}\n" for name, version in wanted.items()
    }, said
    store = machine.folder / "var/lib/lamella"
    one, same, other = (store / f"pods/uid-of-{name}/env/bin/python" for name in wanted)
    assert one.stat().st_ino == same.stat().st_ino == other.stat().st_ino
    assert list(store.glob("derived/*")) == [], "at the image prefix nothing is rewritten"


def test_a_node_that_has_the_environment_starts_a_pod_without_the_registry(
    machine: Node, environments: dict[str, Path], shared: Path
) -> None:
    with distribution() as host:
        reference = push(
            f"{host}/team/envs:v1", str(environments["1.0"]), cache=LayerCache(str(shared / "cache"))
        ).reference
        assert machine.run(in_store(reference), "first", "0000-1").logs["main"] == "1.0\n"

    said = machine.run(in_store(reference), "second", "0000-2")

    assert said.logs["main"] == "1.0\n", said


def test_an_init_container_that_runs_again_leaves_the_environment_as_it_is(
    machine: Node, pushed: dict[str, str]
) -> None:
    machine.run(in_store(pushed["1.0"]), "train", "0000-1")
    environment = machine.folder / "var/lib/lamella/pods/0000-1/env"
    before = os.stat(environment)
    machine.remove("train")

    said = machine.run(in_store(pushed["1.0"]), "train", "0000-1")

    assert said.logs["main"] == "1.0\n", said
    after = os.stat(environment)
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_an_init_container_that_restarts_after_the_tag_moved_names_the_present_environment(
    machine: Node, pushed: dict[str, str]
) -> None:
    machine.run(in_store(pushed["1.0"]), "train", "0000-1")
    machine.remove("train")

    said = machine.run(in_store(pushed["2.0"]), "train", "0000-1")

    assert f"/var/lib/lamella/pods/0000-1/env: already holds {pushed['1.0']}" in said.logs["lamella-environment"], said


def test_a_pods_environment_is_taken_away_when_the_pod_is_gone_and_not_before(
    machine: Node, pushed: dict[str, str]
) -> None:
    for name, version in (("stays", "1.0"), ("goes", "2.0")):
        log_folder(machine, name, f"uid-of-{name}")
        machine.run(in_store(pushed[version]), name, f"uid-of-{name}")
    store = machine.folder / "var/lib/lamella"
    layers = len(list(store.glob("layers/*/*")))
    machine.remove("goes")
    shutil.rmtree(machine.folder / "var/log/pods/default_goes_uid-of-goes")
    log_folder(machine, "cleaner", "uid-of-cleaner")

    cleaner = pod_of(here(CLEANER)).replace('"--older-than", "14d"', '"--all", "--yes"')
    said = machine.run(cleaner, "cleaner", "uid-of-cleaner", until="freed")

    assert f"{pushed['2.0']} from /var/lib/lamella/pods/uid-of-goes/env" in said.logs["gc"], said
    assert os.listdir(store / "pods") == ["uid-of-stays"]
    assert len(list(store.glob("layers/*/*"))) == layers - 1
    assert machine.restart("stays", "main") == "1.0\n"


def test_nothing_is_removed_unless_the_folder_of_logs_is_the_kubelets(machine: Node, pushed: dict[str, str]) -> None:
    machine.run(in_store(pushed["1.0"]), "train", "0000-1")
    (machine.folder / "var/log/pods").mkdir(parents=True)

    said = machine.run(pod_of(here(CLEANER)), "cleaner", "uid-of-cleaner", until="missing")

    assert "/var/log/pods/*_uid-of-cleaner" in said.logs["gc"], said
    assert os.listdir(machine.folder / "var/lib/lamella/pods") == ["0000-1"]
    assert machine.restart("train", "main") == "1.0\n"


@pytest.mark.parametrize("store", ["", STORE], ids=["init", "node"])
def test_a_pull_secret_opens_a_private_registry(
    store: str,
    machine: Node,
    environments: dict[str, Path],
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with distribution(auth=True) as host:
        entry = {"username": USER, "password": PASSWORD, "auth": b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        secret = machine.folder / "secrets/registry/.dockerconfigjson"
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text(json.dumps({"auths": {host: entry}}))
        (tmp_path / "config.json").write_text(secret.read_text())
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        reference = push(
            f"{host}/team/envs:v1", str(environments["1.0"]), cache=LayerCache(str(shared / "cache"))
        ).reference

        refused = machine.run(injected(reference, node_store=store), "without", "0000-1")
        options = InjectOptions(reference, image=NODE, node_store=store, pull_secret="registry")
        said = machine.run(inject(here(POD), options).text, "train", "0000-2")

    assert "lamella login" in refused.logs["lamella-environment"], refused
    assert said.logs["main"] == "1.0\n", said
