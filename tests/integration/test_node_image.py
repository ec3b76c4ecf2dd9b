"""The image for nodes: small, without root, and enough for pods whose own images have no Python."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.layers import sbom
from support.distribution import distribution
from support.engines import need
from support.installed import install, venv, wheel
from support.node_part import make, node_image
from support.pods import DEBIAN, NODE, emptied
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pods import Node

pytestmark = [pytest.mark.engine, pytest.mark.root]

INIT = """\
apiVersion: v1
kind: Pod
metadata:
  name: train
spec:
  restartPolicy: Never
  securityContext:
    runAsNonRoot: true
    runAsUser: {user}
    runAsGroup: 0
  initContainers:
    - name: environment
      image: {node}
      command: ["lamella", "mount", "--method", "hardlinks", "{reference}", "/opt/env"]
      env:
        - name: LAMELLA_STORE
          value: /opt/store
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: ["ALL"]
      volumeMounts:
        - name: opt
          mountPath: /opt
        - name: termination-log
          mountPath: /dev/termination-log
  containers:
    - name: main
      image: {debian}
      command: ["/opt/env/bin/python", "-c", "import ada; print(ada.__version__)"]
      securityContext:
        readOnlyRootFilesystem: true
      volumeMounts:
        - name: opt
          mountPath: /opt
          readOnly: true
  volumes:
    - name: opt
      {volume}
    - name: termination-log
      hostPath:
        path: /termination-log
        type: File
"""
EMPTY_DIR = "emptyDir: {}"
NODE_STORE = "hostPath:\n        path: /store\n        type: DirectoryOrCreate"


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two environments of two packages that differ in one of them, by its version."""
    folder = tmp_path_factory.mktemp("environments")
    shared = wheel(folder, "same", "1.0", {"same.py": ""})
    made = {}
    for version in ("1.0", "2.0"):
        changed = wheel(folder, "ada", version, {"ada/__init__.py": f"import same\n__version__ = '{version}'\n"})
        made[version] = install(venv(folder / version), shared, changed)
    return made


@pytest.fixture
def machine(kubelet: Node) -> Iterator[Node]:
    """A node without a store, without pods, and with a file for their messages, as a kubelet makes it."""
    log = kubelet.folder / "termination-log"
    log.write_text("")
    log.chmod(0o666)
    with emptied(kubelet, "store"):
        yield kubelet


def pod(reference: str, *, user: int = 1000, volume: str = EMPTY_DIR) -> str:
    made = INIT.format(node=NODE, debian=DEBIAN, reference=reference, user=user, volume=volume)
    # The kubelet gives an empty folder to every user; a folder of the machine is root's.
    return made if user else made.replace("runAsNonRoot: true", "runAsNonRoot: false")


@pytest.fixture(scope="module")
def pushed(shared: Path, environments: dict[str, Path]) -> Iterator[dict[str, str]]:
    cache = LayerCache(str(shared / "cache"))
    with distribution() as host:
        yield {
            version: push(f"{host}/team/envs:v{version[0]}", str(prefix), cache=cache).reference
            for version, prefix in environments.items()
        }


@pytest.mark.parametrize("user", [1000, 1_234_567])
def test_worker_without_python_runs_in_the_init_container_s_mount(
    machine: Node, pushed: dict[str, str], user: int
) -> None:
    said = machine.run(pod(pushed["1.0"], user=user), "train", "0000-1")

    assert said.logs["main"] == "1.0\n", said
    assert (machine.folder / "termination-log").read_text() == ""


def layers_of(machine: Node) -> dict[str, int]:
    """When each layer of the node's store was made, by digest."""
    return {path.name: path.stat().st_ctime_ns for path in (machine.folder / "store/store/layers").glob("*/*")}


def test_second_pod_of_a_node_downloads_nothing_and_a_changed_package_alone(
    machine: Node, shared: Path, environments: dict[str, Path]
) -> None:
    def started(name: str, reference: str, target: str) -> str:
        manifest = pod(reference, user=0, volume=NODE_STORE).replace("/opt/env", target)
        return machine.run(manifest, name, name).logs["main"]

    cache = LayerCache(str(shared / "cache"))
    with distribution() as host:
        first, second = (
            push(f"{host}/team/envs:v{version[0]}", str(prefix), cache=cache).reference
            for version, prefix in environments.items()
        )
        assert started("first", first, "/opt/one") == "1.0\n"
        before = layers_of(machine)
        assert started("changed", second, "/opt/two") == "2.0\n"
        after = layers_of(machine)
    # The registry is gone.
    assert started("second", first, "/opt/three") == "1.0\n"
    assert layers_of(machine) == after
    assert len(after) == len(before) + 1
    assert after.items() >= before.items()


def test_wrong_reference_and_missing_secret_fail_the_pod_in_one_sentence(
    machine: Node, pushed: dict[str, str], shared: Path, environments: dict[str, Path]
) -> None:
    missing = pushed["1.0"].partition(":v1")[0] + ":v9"
    with distribution(auth=True) as host:
        for name, reference, sentence in (
            ("wrong", missing, r"lamella: .* no tag 'v9'; .*\n"),
            ("secret", f"{host}/team/envs:v1", r"lamella: .*lamella login .*\n"),
        ):
            (machine.folder / "termination-log").write_text("")
            said = machine.run(pod(reference), name, name)

            assert said.logs["main"] == "", "the worker has not started"
            assert re.fullmatch(sentence, said.logs["environment"]), said
            assert (machine.folder / "termination-log").read_text() == said.logs["environment"]


def test_environment_for_a_newer_c_library_is_mounted_for_other_containers_and_does_not_run_in_this_one(
    machine: Node,
) -> None:
    reference = publish(machine.folder / "layout", [{"bin/tool*": "#!/bin/sh\n"}], glibc="99.0")
    inside = reference.replace(str(machine.folder), "")
    options = ["--rm", "--network", "host", "--log-driver", "k8s-file", "--tmpfs", "/opt:mode=777"]
    options += ["--volume", f"{machine.folder}/layout:/layout:ro", "--env", "LAMELLA_STORE=/opt/store"]

    mounted = machine.call("run", *options, NODE, "mount", "--method", "hardlinks", inside, "/opt/env")
    ran = machine.call("run", *options, NODE, "run", inside, "--", "tool")

    assert (mounted.returncode, mounted.stdout) == (0, "/opt/env\n"), mounted.stderr
    assert "it needs glibc 99.0 or newer" in ran.stderr


def test_image_needs_no_root_no_shell_no_home_and_no_writable_folder(machine: Node) -> None:
    config = json.loads(machine.call("image", "inspect", NODE).stdout)[0]["Config"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.title"] == "Lamella for nodes"
    isolated = ["run", "--rm", "--read-only", "--read-only-tmpfs=false", "--network", "none", "--env", "HOME="]
    isolated += ["--log-driver", "k8s-file", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]

    for user in ("65532", "4711:0"):
        done = machine.call(*isolated, "--user", user, "--entrypoint", "/usr/local/bin/lamella", NODE, "--version")
        assert done.stdout.startswith("lamella "), done.stderr
    program = "import ssl; print(len(ssl.create_default_context().get_ca_certs()) > 100)"
    done = machine.call(*isolated, "--entrypoint", "python", NODE, "-c", program)
    assert done.stdout == "True\n", done.stderr
    shell = machine.call(*isolated, "--entrypoint", "sh", NODE, "-c", "true")
    assert "not found" in shell.stderr


def test_image_is_small_has_a_bill_of_materials_and_is_made_again_as_the_same_bytes(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = node_image(shared)
    command = [need("skopeo"), "inspect", "--raw", reference]
    index: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    (image,) = (each for each in index["manifests"] if each["platform"]["os"] != "unknown")
    layout = Path(reference.removeprefix("oci:").rpartition(":")[0])
    manifest = json.loads((layout / "blobs" / image["digest"].replace(":", "/")).read_bytes())
    assert sum(layer["size"] for layer in manifest["layers"]) < 60_000_000
    names = {each["name"] for each in json.loads(sbom(reference))["components"]}
    assert {"lamella", "urllib3", "zstandard", "cryptography"} <= names

    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TZ", "America/New_York")
    make("image", tmp_path / "again", "--machine", os.uname().machine, "--compression", "zstd")

    assert (tmp_path / "again/index.json").read_bytes() == (layout / "index.json").read_bytes()
