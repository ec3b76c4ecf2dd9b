"""The store among processes: killed at any moment, shared by fifty, collected meanwhile."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lamella.layers.layout import OciLayout
from lamella.layers.oci.documents import LAYER_TAR, LAYER_ZSTD, Layer
from lamella.layers.pulling.pull import pull
from lamella.layers.store.store import Store
from lamella.layers.upkeep.gc import gc
from lamella.layers.upkeep.verify import verify
from support import tars
from support.distribution import distribution
from support.engines import need_root
from support.processes import started
from support.published import publish_layers

TESTS = Path(__file__).parent.parent


@dataclass(frozen=True)
class Stress:
    """How much of it: `make stress` runs more."""

    kills: int = 10
    writers: int = 6
    processes: int = 8
    rounds: int = 5


@pytest.fixture
def stress(request: pytest.FixtureRequest) -> Stress:
    return Stress(300, 300, 50, 100) if request.config.getoption("--stress", default=False) else Stress()


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"support.{name}", *arguments]


def packages(count: int, seed: int = 0) -> list[tuple[Layer, bytes]]:
    """`count` layers with a few files each, the first ones larger than the last."""
    chance = random.Random(seed)
    return [
        tars.layer(
            tars.tree(
                {
                    f"opt/env/lib/p{number}/{name}.py": chance.randbytes(chance.randrange(30_000 // (number + 1)))
                    for name in "abcdef"
                }
            ),
            package=f"p{number}",
        )
        for number in range(count)
    ]


def killed(verb: str, folder: Path, kills: int, seed: int, *large: str) -> Any:
    """What `support.killed` counted."""
    publish_layers(OciLayout(str(folder / "layout"), create=True), "env", packages(8))
    command = program("killed", verb, f"oci:{folder}/layout:env", str(folder), str(kills), str(seed), *large)
    ran = subprocess.run(command, cwd=TESTS, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.root
@pytest.mark.parametrize("verb", ["pull", "gc", "export", "mount"])
def test_a_verb_killed_at_any_moment_leaves_no_wrong_byte_and_can_be_repeated(
    tmp_path: Path, verb: str, stress: Stress
) -> None:
    if verb == "mount":
        need_root()
    result = killed(verb, tmp_path, stress.kills, 1)
    print(verb, result)
    assert result["wrong"] == []
    assert result["kills"] == stress.kills


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("where", ["registry", "layout"])
@pytest.mark.parametrize("verb", ["push", "copy"])
def test_a_push_or_copy_killed_at_any_moment_leaves_no_wrong_byte_and_can_be_repeated(
    tmp_path: Path, verb: str, where: str, stress: Stress
) -> None:
    data = tmp_path / "data"
    with distribution(folder=str(data)) if where == "registry" else nullcontext("") as host:
        place = f"{host}/team/envs" if host else f"oci:{data}"
        ran = subprocess.run(
            program("killed", verb, place, str(tmp_path), str(stress.writers), "1", str(data)),
            cwd=TESTS,
            check=False,
            capture_output=True,
            text=True,
        )
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    print(verb, where, result)
    assert result["wrong"] == []
    assert result["kills"] == stress.writers


def test_remains_of_killed_pulls_go_with_the_next_gc(tmp_path: Path) -> None:
    assert killed("pull", tmp_path, 20, 3)["wrong"] == []
    store = Store(str(tmp_path / "store"))
    gc(store)
    left = {name: os.listdir(f"{store.path}/{name}") for name in ("partial", "locks", "leases")}
    assert left == {"partial": [], "locks": [], "leases": []}
    fresh = Store(str(tmp_path / "fresh"))
    pull(f"oci:{tmp_path}/layout:env", store=fresh)
    assert tars.snapshot(f"{store.path}/layers") == tars.snapshot(f"{fresh.path}/layers")


def test_a_pull_killed_with_its_workers_at_work_leaves_a_store_that_is_whole_and_goes_on(tmp_path: Path) -> None:
    assert killed("pull", tmp_path, 8, 4, "1")["wrong"] == []
    store = Store(str(tmp_path / "store"))
    # The last worker may still be about to see that its input has ended.
    deadline = time.monotonic() + 30
    while os.listdir(f"{store.path}/partial") and time.monotonic() < deadline:
        gc(store)
    assert os.listdir(f"{store.path}/partial") == []


def test_many_processes_pull_5_overlapping_environments_and_free_all_in_a_loop(tmp_path: Path, stress: Stress) -> None:
    layout = OciLayout(str(tmp_path / "layout"), create=True)
    made = packages(20)
    for number in range(5):
        publish_layers(layout, f"env{number}", made[number * 2 : number * 2 + 12])
    references = [f"oci:{tmp_path}/layout:env{number}" for number in range(5)]
    store = Store(str(tmp_path / "store"))
    chance = random.Random(2)
    with ExitStack() as stack:
        commands = [
            program("crowd", store.path, str(stress.rounds), *chance.sample(references, 5))
            for _ in range(stress.processes)
        ]
        processes = [
            stack.enter_context(started(command, cwd=TESTS, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
            for command in commands
        ]
        outcomes = [(*process.communicate(), process.returncode) for process in processes]
    # On a busy machine some report that they wait for another's gc.
    assert [errors for _, errors, code in outcomes if code] == []
    downloaded, freed = (
        sum(map(int, numbers)) for numbers in zip(*(said.split() for said, _, _ in outcomes), strict=True)
    )
    print(f"{stress.processes} processes, {stress.rounds} rounds each: {downloaded} layers downloaded, {freed} freed")
    assert freed > 0
    for reference in references:
        pull(reference, store=store)
    assert verify(store).damaged == ()
    assert os.listdir(f"{store.path}/partial") == []
    fresh = Store(str(tmp_path / "fresh"))
    for reference in references:
        pull(reference, store=fresh)
    assert tars.snapshot(f"{store.path}/layers") == tars.snapshot(f"{fresh.path}/layers")


def test_concurrent_processes_fetch_each_layer_once(tmp_path: Path) -> None:
    made = packages(8)
    publish_layers(OciLayout(str(tmp_path / "layout"), create=True), "env", made)
    say = (
        "import sys; from lamella.layers.pulling.pull import pull; from lamella.layers.store.store import Store; sys.stdin.read(1); "
        "print(pull(sys.argv[1], store=Store(sys.argv[2])).moved)"
    )
    command = [sys.executable, "-c", say, f"oci:{tmp_path}/layout:env", str(tmp_path / "store")]
    with ExitStack() as stack:
        pullers = [
            stack.enter_context(started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)) for _ in range(6)
        ]
        for puller in pullers:
            assert puller.stdin is not None
            puller.stdin.write("x")
            puller.stdin.flush()
        moved = [int(puller.communicate()[0]) for puller in pullers]
    assert sum(moved) == sum(layer.descriptor.size for layer, _ in made)


@pytest.mark.parametrize("kind", ["random", "zeros"])
def test_memory_does_not_grow_with_a_layer(tmp_path: Path, kind: str) -> None:
    size = 160 << 20
    (tmp_path / "layout").mkdir()
    content = random.Random(3).randbytes(1 << 20) * (size >> 20) if kind == "random" else bytes(size)
    tar = tars.header(b"opt/env/large", size=size) + content + tars.END
    media_type = LAYER_TAR if kind == "random" else LAYER_ZSTD
    made = tars.layer(tar, media_type, unpacked=size)
    publish_layers(OciLayout(str(tmp_path / "layout"), create=True), "env", [made])
    del tar, content
    say = (
        "import sys; from lamella.layers.pulling.pull import pull; from lamella.layers.store.store import Store; "
        "pull(sys.argv[1], store=Store(sys.argv[2])); print(open('/proc/self/status').read()); "
        "import resource; print('Workers:', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", say, f"oci:{tmp_path}/layout:env", str(tmp_path / "store")],
        check=True,
        capture_output=True,
        text=True,
    )
    # Not ru_maxrss, which begins with what the parent had when it forked.
    peaks = dict(line.split()[:2] for line in ran.stdout.splitlines() if line.startswith(("VmHWM:", "Workers:")))
    assert int(peaks["VmHWM:"]) < 60 << 10
    assert int(peaks["Workers:"]) < 60 << 10
