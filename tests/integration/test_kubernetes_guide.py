"""The YAML of docs/how-to/kubernetes.md runs as it stands there, images' names aside."""

from __future__ import annotations

import json
import os
import shutil
import threading
from base64 import b64encode
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from support.distribution import PASSWORD, USER, distribution
from support.installed import install, venv, wheel
from support.pods import DEBIAN, ROOT, TOOLS, blocks, make_images, node, patched, pod_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pods import Node

pytestmark = [pytest.mark.engine, pytest.mark.root]

IMAGE_VOLUME, INIT_CONTAINER, NODE_STORE, CLEANER, PULL_SECRET = blocks(ROOT / "docs/how-to/kubernetes.md")
DOCUMENTED = "registry.example.com/team/envs:v1"


@pytest.fixture(scope="module")
def registry() -> Iterator[str]:
    with distribution() as host:
        yield host


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two environments that differ in one package: what their pods print, and the prefix."""
    folder = tmp_path_factory.mktemp("environments")
    made = {}
    for version in ("1.0", "2.0"):
        numpy = wheel(folder, "numpy", version, {"numpy/__init__.py": f"__version__ = '{version}'\n"})
        made[version] = install(venv(folder / version), numpy)
    return made


@pytest.fixture(scope="module")
def pushed(registry: str, environments: dict[str, Path], shared: Path) -> dict[str, str]:
    """References, with digests, by what their pods print."""
    cache = LayerCache(str(shared / "cache"))
    return {
        version: push(f"{registry}/team/envs:v{version[0]}", str(prefix), cache=cache).reference
        for version, prefix in environments.items()
    }


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, shared: Path, debian: Path) -> Iterator[Node]:
    images = make_images(shared / "pods", debian)
    with node(tmp_path_factory.mktemp("node"), images) as made:
        yield made


@pytest.fixture
def machine(kubelet: Node) -> Iterator[Node]:
    """A node that has no store, and no pod."""
    yield kubelet
    kubelet.call("pod", "rm", "--all", "--force", "--time", "0")
    shutil.rmtree(kubelet.folder / "var", ignore_errors=True)


def here(manifest: str, reference: str) -> str:
    """A block of the guide with the images that are here."""
    images = {
        "image: debian:bookworm-slim": f"image: {DEBIAN}",
        "image: registry.example.com/tools/lamella:0.1": f"image: {TOOLS}",
    }
    for documented, image in images.items():
        manifest = manifest.replace(documented, image)
    return manifest.replace(DOCUMENTED, reference)


def log_folder(machine: Node, name: str, uid: str) -> Path:
    """What a kubelet makes before a pod's first container."""
    folder = machine.folder / f"var/log/pods/default_{name}_{uid}"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("block", [IMAGE_VOLUME, INIT_CONTAINER, NODE_STORE], ids=["image", "init", "node"])
def test_each_pod_of_the_guide_runs_without_python_on_the_machine(
    block: str, machine: Node, pushed: dict[str, str]
) -> None:
    said = machine.run(here(block, pushed["1.0"]), "train", "0000-1")

    assert said.logs["main"] == "1.0\n", said


def test_pods_that_start_at_once_share_a_store_and_each_has_its_environment(
    machine: Node, pushed: dict[str, str]
) -> None:
    wanted = {"one": "1.0", "same": "1.0", "other": "2.0"}
    said = {}

    def start(name: str, version: str) -> None:
        said[name] = machine.run(here(NODE_STORE, pushed[version]), name, f"uid-of-{name}")

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
        assert machine.run(here(NODE_STORE, reference), "first", "0000-1").logs["main"] == "1.0\n"

    said = machine.run(here(NODE_STORE, reference), "second", "0000-2")

    assert said.logs["main"] == "1.0\n", said


def test_an_init_container_that_runs_again_leaves_the_environment_as_it_is(
    machine: Node, pushed: dict[str, str]
) -> None:
    machine.run(here(NODE_STORE, pushed["1.0"]), "train", "0000-1")
    environment = machine.folder / "var/lib/lamella/pods/0000-1/env"
    before = os.stat(environment)
    machine.remove("train")

    said = machine.run(here(NODE_STORE, pushed["1.0"]), "train", "0000-1")

    assert said.logs["main"] == "1.0\n", said
    after = os.stat(environment)
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_an_init_container_that_restarts_after_the_tag_moved_names_the_present_environment(
    machine: Node, pushed: dict[str, str]
) -> None:
    machine.run(here(NODE_STORE, pushed["1.0"]), "train", "0000-1")
    machine.remove("train")

    said = machine.run(here(NODE_STORE, pushed["2.0"]), "train", "0000-1")

    assert f"/var/lib/lamella/pods/0000-1/env: already holds {pushed['1.0']}" in said.logs["environment"], said


def test_a_pods_environment_is_taken_away_when_the_pod_is_gone_and_not_before(
    machine: Node, pushed: dict[str, str]
) -> None:
    for name, version in (("stays", "1.0"), ("goes", "2.0")):
        log_folder(machine, name, f"uid-of-{name}")
        machine.run(here(NODE_STORE, pushed[version]), name, f"uid-of-{name}")
    store = machine.folder / "var/lib/lamella"
    layers = len(list(store.glob("layers/*/*")))
    machine.remove("goes")
    shutil.rmtree(machine.folder / "var/log/pods/default_goes_uid-of-goes")
    log_folder(machine, "cleaner", "uid-of-cleaner")

    cleaner = pod_of(here(CLEANER, "")).replace("--older-than 14d", "--all --yes")
    said = machine.run(cleaner, "cleaner", "uid-of-cleaner", until="freed")

    assert f"{pushed['2.0']} from /var/lib/lamella/pods/uid-of-goes/env" in said.logs["gc"], said
    assert os.listdir(store / "pods") == ["uid-of-stays"]
    assert len(list(store.glob("layers/*/*"))) == layers - 1
    assert machine.restart("stays", "main") == "1.0\n"


def test_nothing_is_removed_unless_the_folder_of_logs_is_the_kubelets(machine: Node, pushed: dict[str, str]) -> None:
    machine.run(here(NODE_STORE, pushed["1.0"]), "train", "0000-1")
    (machine.folder / "var/log/pods").mkdir(parents=True)

    said = machine.run(pod_of(here(CLEANER, "")), "cleaner", "uid-of-cleaner", until="No such file")

    assert "/var/log/pods/*_uid-of-cleaner" in said.logs["gc"], said
    assert os.listdir(machine.folder / "var/lib/lamella/pods") == ["0000-1"]
    assert machine.restart("train", "main") == "1.0\n"


@pytest.mark.parametrize("block", [INIT_CONTAINER, NODE_STORE], ids=["init", "node"])
def test_a_pull_secret_opens_a_private_registry(
    block: str,
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

        refused = machine.run(here(block, reference), "without", "0000-1")
        said = machine.run(here(patched(block, PULL_SECRET), reference), "train", "0000-2")

    assert "lamella login" in refused.logs["environment"], refused
    assert said.logs["main"] == "1.0\n", said
