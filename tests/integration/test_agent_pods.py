"""Pods of the method `host` on a node with an agent, run by podman, with a real registry."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from base64 import b64encode
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from lamella.builder import InjectOptions, inject
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.push import push
from lamella.layers import Unreachable, agent_state, copy
from support.agents import Agent, agent_process, wait_for
from support.distribution import PASSWORD, USER, distribution
from support.engines import need
from support.installed import two_versions
from support.pods import DEBIAN, NODE, emptied
from support.processes import DEADLINE
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.pods import Node

pytestmark = [pytest.mark.engine, pytest.mark.root, pytest.mark.slow]

POD = f"""\
apiVersion: v1
kind: Pod
metadata:
  name: train
spec:
  restartPolicy: Never
  initContainers:
    - name: own
      image: {DEBIAN}
      command: ["/bin/true"]
  containers:
    - name: main
      image: {DEBIAN}
      command: ["/opt/env/bin/python", "-c", "import numpy; print(numpy.__version__)"]
"""
LOOP = "print(numpy.__version__, flush=True); import time; time.sleep(600)"


def pod(reference: str, *, elsewhere: bool = True) -> str:
    """A pod with the environment that a reference with digest names, as `lamella inject` writes it.

    The node image leaves the C library to the worker; not `elsewhere`, it compares its own.
    """
    injected = inject(POD, InjectOptions(reference, "host", NODE), name="pod.yaml").text
    if not elsewhere:
        own = '      env:\n        - name: LAMELLA_ELSEWHERE\n          value: "0"\n'
        injected = injected.replace(f"      image: {NODE}\n", f"      image: {NODE}\n{own}")
    # podman 4.3 takes 63 characters of an annotation, as Kubernetes does of a label.
    return re.sub(r"^  annotations:\n(?:    .*\n)+", "", injected, flags=re.MULTILINE)


@pytest.fixture(scope="module")
def prefixes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two environments that differ in one package, by what their pods print."""
    return two_versions(tmp_path_factory.mktemp("environments"), "numpy")


@pytest.fixture
def machine(kubelet: Node) -> Iterator[Node]:
    """A node without a store and without pods."""
    with emptied(kubelet, "var", "run"):
        yield kubelet


@contextmanager
def agent(machine: Node, *arguments: str) -> Iterator[Agent]:
    """The node's agent, as a service of the machine."""
    run, lib = machine.folder / "run/lamella", machine.folder / "var/lib/lamella"
    for folder in (run, lib):
        folder.mkdir(parents=True, exist_ok=True)
    (run / "store").symlink_to(lib)
    with agent_process(run, *arguments) as (made, process):
        try:
            yield made
        finally:
            machine.call("pod", "rm", "--all", "--force", "--time", "0")
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                made.clean()


def answers(made: Agent) -> bool:
    """Whether the agent's socket is served."""
    try:
        return "ready" in agent_state(made.socket)
    except Unreachable:
        return False


def downloaded(made: Agent) -> int:
    found = re.search(r"downloaded_layers_total (\d+)", made.get("/metrics")[1])
    assert found
    return int(found[1])


def test_pods_of_a_node_share_one_download(machine: Node, prefixes: dict[str, Path], shared: Path) -> None:
    cache = LayerCache(str(shared / "cache"))
    with distribution() as host:
        pushed = {
            version: push(f"{host}/team/envs:v{version[0]}", str(prefix), cache=cache).reference
            for version, prefix in prefixes.items()
        }
        with agent(machine, "--allow", f"{host}/team") as made:
            assert machine.run(pod(pushed["1.0"]), "first", "1").logs["main"] == "1.0\n"
            layers = downloaded(made)
            assert layers > 1

            assert machine.run(pod(pushed["1.0"]), "second", "2").logs["main"] == "1.0\n"
            assert downloaded(made) == layers

            assert machine.run(pod(pushed["2.0"]), "changed", "3").logs["main"] == "2.0\n"
            assert downloaded(made) == layers + 1
            assert machine.restart("first", "main") == "1.0\n", "the earlier environment stays"


def test_twenty_pods_at_once_download_each_layer_once(machine: Node, prefixes: dict[str, Path], shared: Path) -> None:
    with distribution() as host, agent(machine, "--allow", f"{host}/team") as made:
        cache = LayerCache(str(shared / "cache"))
        pushed = push(f"{host}/team/envs:v1", str(prefixes["1.0"]), cache=cache)
        said = {}

        def start(name: str) -> None:
            said[name] = machine.run(pod(pushed.reference), name, name).logs["main"]

        threads = [threading.Thread(target=start, args=(f"pod{number}",)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {f"pod{number}": "1.0\n" for number in range(20)}
        layers = len(list((machine.folder / "var/lib/lamella/layers/sha256").iterdir()))
        assert downloaded(made) == layers


def test_a_pod_without_its_environment_fails_in_one_sentence_before_its_worker_starts(
    machine: Node, prefixes: dict[str, Path], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = LayerCache(str(shared / "cache"))
    with distribution(auth=True) as host, distribution() as other:
        needy = f"{other}/team/envs:v1"
        needy = copy(publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh"}], glibc="99.1"), needy).reference
        entry = {"auth": b64encode(f"{USER}:{PASSWORD}".encode()).decode()}
        (tmp_path / "config.json").write_text(json.dumps({"auths": {host: entry}}))
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
        reference = push(f"{host}/team/envs:v1", str(prefixes["1.0"]), cache=cache).reference
        (tmp_path / "empty").mkdir()
        monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "empty"))
        absent = f"{host}/team/envs@sha256:{'0' * 64}"
        refused = {
            "older-glibc": (pod(needy, elsewhere=False), "needs glibc 99.1 or newer"),
            "no-secret": (pod(reference), "lamella login"),
            "elsewhere": (pod(absent.replace("team", "other")), "not allowed by the agent of this node"),
        }
        with agent(machine, "--allow", f"{host}/team", "--allow", f"{other}/team"):
            for name, (manifest, message) in refused.items():
                said = machine.run(manifest, name, name)
                (line,) = said.logs["lamella-environment"].splitlines()
                assert line.startswith("lamella: agent of the node: "), said
                assert message in line, said
                assert "1.0" not in said.logs["main"], said


@contextmanager
def privileged(machine: Node, store: Path, host: str, *arguments: str) -> Iterator[Agent]:
    """The agent as a DaemonSet runs it: in a privileged container that sees the node's processes."""
    run = machine.folder / "run/lamella"
    run.mkdir(parents=True, exist_ok=True)
    command = ["run", "--detach", "--name", "agent", "--privileged", "--pid", "host", "--network", "host"]
    command += ["--security-opt", "label=disable", "--read-only", "--user", "0"]
    command += ["--volume", f"{store}:/var/lib/lamella:rshared", "--volume", f"{run}:/run/lamella"]
    agent = ["agent", "--allow", f"{host}/team", "--metrics", "", "--min-free", "0%"]
    done = machine.call(*command, NODE, *agent, *arguments)
    assert done.returncode == 0, done.stderr
    try:
        yield Agent(run)
    finally:
        machine.call("rm", "--force", "--time", "5", "agent")


def test_an_agent_in_a_privileged_container_serves_pods_and_frees_after_the_last(
    machine: Node, prefixes: dict[str, Path], shared: Path
) -> None:
    store = machine.folder / "var/lib/lamella"
    store.mkdir(parents=True)
    subprocess.run([need("mount"), "--bind", store, store], check=True)
    subprocess.run([need("mount"), "--make-shared", store], check=True)
    try:
        with distribution() as host:
            cache = LayerCache(str(shared / "cache"))
            reference = push(f"{host}/team/envs:v1", str(prefixes["1.0"]), cache=cache).reference
            place = store / "environments" / reference.rpartition("@")[2].replace(":", "-")
            # It goes on until it is removed, as a worker does.
            worker = pod(reference).replace("print(numpy.__version__)", LOOP)
            with privileged(machine, store, host):
                assert machine.run(worker, "worker", "1", until="1.0").logs["main"].startswith("1.0\n")
                before = os.stat(place).st_dev
                machine.call("kill", "--signal", "KILL", "agent")
            with privileged(machine, store, host):
                # The second pod asks for the environment that the first agent mounted.
                assert machine.run(pod(reference), "second", "2").logs["main"] == "1.0\n"
                assert os.stat(place).st_dev == before
                log = machine.call("logs", "agent").stderr
                assert "found 1 mounted environment" in log, log
                assert "may not reach" not in log, log
                assert "hostPID" not in log, log
            with privileged(machine, store, host, "--keep", "1B", "--idle", "0s", "--every", "0.2") as freeing:
                wait_for(lambda: answers(freeing))
                wait_for(lambda: bool(re.search(r"checks_total [2-9]", freeing.get("/metrics")[1])))
                assert (place / "bin/python").exists()
                machine.remove("worker")
                wait_for(lambda: not place.exists())
                wait_for(lambda: not list((store / "layers/sha256").iterdir()))
    finally:
        machine.call("pod", "rm", "--all", "--force", "--time", "0")
        for mounted in store.glob("environments/*"):
            subprocess.run([need("umount"), mounted], check=False, capture_output=True)
        subprocess.run([need("umount"), store], check=True)
