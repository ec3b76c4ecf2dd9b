"""Pushes to registries: as many packages as anybody has, layers larger than memory may be, faults on the way, and others."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.errors import LayersError, NotFound
from lamella.layers.mounting.mount import mount, umount
from lamella.layers.oci.documents import INDEX, MANIFEST
from lamella.layers.published.copy import copy
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from support.distribution import distribution
from support.engines import need_root
from support.packages import SITE, environment, package
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lamella.builder.environment import Environment

MANY = 600
LARGE = 400 << 20
MOST = 200 << 20
"""Bytes of memory that any verb may need."""


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


def some(prefix: Path, *, count: int = 4, more: str = "") -> Environment:
    """Packages p0, p1 and so on; their code ends with `more`."""
    packages = []
    for number in range(count):
        files: dict[str, str | bytes] = {f"{SITE}/p{number}.py": f"n = {number}\n{more}"}
        if number == 0:
            files["share/p0.bin"] = random.Random(more).randbytes(200_000)
        packages.append(package(prefix, f"p{number}", files))
    return environment(prefix, *packages, compiles=True)


def tree(reference: str, store: Store) -> dict[str, bytes]:
    """The modules that a node gets, by name."""
    pulled = pull(reference, store=store)
    found = {}
    for layer in pulled.environment.layers:
        name = layer.descriptor.annotations["dev.lamella.package"]
        with open(f"{store.layer_path(layer.diff_id)}/opt/env/{SITE}/{name}.py", "rb") as file:
            found[name] = file.read()
    return found


@pytest.mark.engine
@pytest.mark.parametrize("part", ["manifests", "configs", "layers"])
def test_content_that_a_registry_deleted_is_sent_again_by_the_next_push(tmp_path: Path, part: str) -> None:
    cache = LayerCache(str(tmp_path / "cache"))
    with distribution() as host:
        reference = f"{host}/team/envs:v1"
        first = push(reference, some(tmp_path / "env"), cache=cache)
        index = json.loads(ask(host, "GET", f"manifests/{first.reference.partition('@')[2]}", INDEX))
        for entry in index["manifests"]:
            manifest = json.loads(ask(host, "GET", f"manifests/{entry['digest']}", MANIFEST))
            lost = {"manifests": [], "configs": [manifest["config"]], "layers": manifest["layers"]}[part]
            for each in lost:
                with contextlib.suppress(urllib.error.HTTPError):  # both manifests have the same layers
                    ask(host, "DELETE", f"blobs/{each['digest']}")
            if part == "manifests":
                ask(host, "DELETE", f"manifests/{entry['digest']}")
        with pytest.raises(NotFound):
            copy(reference, f"oci:{tmp_path}/broken:v1")
        again = push(reference, some(tmp_path / "again"), cache=cache)
        assert again.reference == first.reference
        copy(reference, f"oci:{tmp_path}/whole:v1")
        assert push(reference, some(tmp_path / "again"), cache=cache).plan.unchanged


def ask(host: str, method: str, target: str, accept: str = "*/*") -> bytes:
    """One request to the registry, as its operator makes it."""
    request = urllib.request.Request(f"http://{host}/v2/team/envs/{target}", method=method, headers={"Accept": accept})
    with urllib.request.urlopen(request) as answer:
        return bytes(answer.read())


@pytest.mark.engine
@pytest.mark.root
def test_more_packages_than_an_image_may_have_layers_are_pushed_pulled_and_mounted(tmp_path: Path) -> None:
    """Images of more than 500 layers are refused by ECR, mounts of more than 500 by the kernel."""
    need_root()
    env = environment(
        tmp_path / "env",
        *(package(tmp_path / "env", f"p{number}", {f"share/p{number}": f"{number}"}) for number in range(MANY)),
    )
    store = Store(str(tmp_path / "store"))
    with distribution() as host:
        pushed = push(f"{host}/team/envs:v1", env, cache=LayerCache(str(tmp_path / "cache")))
        again = push(f"{host}/team/envs:v1", env, cache=LayerCache(str(tmp_path / "cache")))
        assert again.plan.unchanged
        colleague = push(f"{host}/team/envs:v2", env, cache=LayerCache(str(tmp_path / "other")))
        assert (colleague.built, colleague.uploaded) == (0, 0)
        pulled = pull(pushed.reference, store=store)
        assert len(pulled.environment.layers) == MANY
        mount(pushed.reference, str(tmp_path / "target"), store=store)
    try:
        found = {path.name: path.read_text() for path in (tmp_path / "target/share").iterdir()}
    finally:
        umount(str(tmp_path / "target"), store=store)
    assert found == {f"p{number}": f"{number}" for number in range(MANY)}


PUSH = """
import hashlib, json, os, sys
from dataclasses import replace
from pathlib import Path
from lamella.builder.layer.cache import LayerCache
from lamella.builder.environment import File
from lamella.builder.pushing.push import push
from support.packages import environment, package

prefix, reference, cache = sys.argv[1:]
path = f"{prefix}/share/large"
with open(path, "rb") as file:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
seen = os.stat(path)
file = File("share/large", path, 0o644, seen.st_size, digest.hexdigest(), None, "", seen.st_mtime_ns, seen.st_ctime_ns)
large = replace(package(Path(prefix), "large", {"share/empty": ""}), files=(file,))
pushed = push(reference, environment(Path(prefix), large), cache=LayerCache(cache))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"moved": pushed.moved, "peak": peak << 10}))
"""


@pytest.mark.engine
def test_a_push_takes_less_memory_than_its_largest_layer(tmp_path: Path) -> None:
    prefix = tmp_path / "env"
    (prefix / "share").mkdir(parents=True)
    # The repetition is further away than a compressor's window.
    block = random.Random(0).randbytes(20 << 20)
    with open(prefix / "share/large", "wb") as file:
        file.writelines(block for _ in range(LARGE // len(block)))
    with distribution() as host:
        command = [sys.executable, "-c", PUSH, str(prefix), f"{host}/team/envs:v1", str(tmp_path / "cache")]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={"PYTHONPATH": ":".join(sys.path)})
    found = json.loads(done.stdout)
    assert found["moved"] > LARGE * 0.9
    assert found["peak"] < MOST


def passing(chance: random.Random) -> list[Fault]:
    """A few faults that end by themselves."""
    kinds = [
        Fault("GET .*/manifests/", status=429),
        Fault("GET .*/manifests/", status=503),
        Fault("GET .*/tags/list", status=500),
        Fault("HEAD", status=502),
        Fault("POST", status=500),
        Fault("POST", lost=True),
        Fault("PUT .*/blobs/", take=chance.randrange(100_000), reset=True),
        Fault("PUT .*/blobs/", lost=True),
        Fault("PUT .*/blobs/", status=404),
        Fault("PUT .*/blobs/", status=429, headers={"Retry-After": "0"}),
        Fault("PUT .*/manifests/", lost=True),
        Fault("PUT .*/manifests/", status=504),
        Fault("PUT .*/manifests/v1", take=10, reset=True),
    ]
    return chance.sample(kinds, 5)


@pytest.mark.parametrize("seed", range(8))
def test_faults_that_pass_are_not_noticed_by_a_push(tmp_path: Path, simulator: RegistrySimulator, seed: int) -> None:
    chance = random.Random(seed)
    reference = f"{simulator.host}/team/envs:v1"
    simulator.referrers_api = chance.random() < 0.5
    cache = LayerCache(str(tmp_path / "cache"))
    for more in ("", "changed = 1\n"):
        simulator.faults = passing(chance)
        pushed = push(reference, some(tmp_path / f"env{more[:1]}", more=more), PushOptions(sbom=True), cache=cache)
        assert simulator.tags["team/envs"]["v1"] == pushed.reference.partition("@")[2]
        simulator.faults = []
        found = tree(pushed.reference, Store(str(tmp_path / f"store{more[:1]}")))
        assert found == {f"p{number}": f"n = {number}\n{more}".encode() for number in range(4)}
    for digest, content in simulator.blobs["team/envs"].items():
        assert f"sha256:{hashlib.sha256(content).hexdigest()}" == digest


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("PUT .*/blobs/", 99, 403), "denies"),
        (Fault("PUT .*/blobs/", 99, 507, {"Retry-After": "1000"}), "answered 507"),
        (Fault("POST .*/uploads/", 99, 401, {"WWW-Authenticate": "Basic"}), "log in with lamella login"),
        (Fault("PUT .*/manifests/sha256:", 99, 400), "answered 400"),
        (Fault("PUT .*/manifests/v1", 99, 403), "denies"),
        (Fault("GET .*/manifests/v1", 99, 200, {"Content-Type": "text/html"}, b"<html>"), "a proxy or a login page"),
    ],
    ids=["denied", "full", "login", "manifest", "tag", "proxy"],
)
def test_failed_push_reports_its_reason_and_leaves_the_tag_whole(
    tmp_path: Path, simulator: RegistrySimulator, fault: Fault, message: str
) -> None:
    reference = f"{simulator.host}/team/envs:v1"
    cache = LayerCache(str(tmp_path / "cache"))
    first = push(reference, some(tmp_path / "a"), cache=cache)
    simulator.faults = [fault]
    changed = some(tmp_path / "b", more="changed = 1\n")
    with pytest.raises(LayersError, match=message) as caught:
        push(reference, changed, cache=cache)
    assert "\n" not in str(caught.value)
    assert simulator.tags["team/envs"]["v1"] == first.reference.partition("@")[2]
    simulator.faults = []
    assert tree(reference, Store(str(tmp_path / "store")))["p1"] == b"n = 1\n"
    push(reference, changed, cache=cache)
    assert tree(reference, Store(str(tmp_path / "store")))["p1"] == b"n = 1\nchanged = 1\n"


@pytest.mark.engine
def test_two_who_push_different_environments_to_one_tag_both_succeed(tmp_path: Path) -> None:
    """The tag is one of the two, and both can be had by their digests."""
    with distribution() as host:

        def pushed(number: int) -> str:
            env = some(tmp_path / f"env{number}", count=12, more=f"who = {number}\n")
            cache = LayerCache(str(tmp_path / f"cache{number}"))
            return push(f"{host}/team/envs:v1", env, cache=cache).reference

        with ThreadPoolExecutor(2) as threads:
            references = list(threads.map(pushed, range(2)))
        trees = [tree(reference, Store(str(tmp_path / "store"))) for reference in references]
        assert [each["p3"] for each in trees] == [b"n = 3\nwho = 0\n", b"n = 3\nwho = 1\n"]
        assert tree(f"{host}/team/envs:v1", Store(str(tmp_path / "other"))) in trees
