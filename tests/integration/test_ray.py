"""Jobs of a real Ray cluster, a head and a node, in environments that a driver pushes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import need
from support.installed import venv
from support.own_distributions import link_distributions
from support.ray_cluster import UNUSED_BY_WORKERS, ray_cluster
from support.scanned import SITE_ON_NODES
from support.supervised import supervised

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ray_cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.engine]

# A driver runs where no code of the project is: Ray adds its folder to the path of workers on the same machine.
EDITS = """
import json, pathlib, sys
import ray
import lamella.integrations.ray
from lamella.builder import ScanOptions

address, prefix, reference, project = sys.argv[1:]

@ray.remote(resources={"keeps": 1})
class Actor:
    def answer(self):
        import job
        return [job.VALUE, job.__file__, sys.prefix]

def pushed(value):
    pathlib.Path(project, "job.py").write_text(f"VALUE = {value!r}\\n")
    return lamella.integrations.ray.runtime_env(reference, prefix, scan_options=ScanOptions(local=project))

first = pushed("one")
ray.init(address, logging_level="ERROR", log_to_driver=False)
old = Actor.options(runtime_env=first).remote()
said = [ray.get(old.answer.remote())]
second = pushed("two")
new = Actor.options(runtime_env=second).remote()
said += [ray.get(new.answer.remote()), ray.get(old.answer.remote())]
print(json.dumps({"first": first, "second": second, "said": said}))
"""
NEXT_JOB = """
import json, sys
import ray

address, *wanted = sys.argv[1:]
ray.init(address, logging_level="ERROR", log_to_driver=False)

@ray.remote(num_cpus=0.1)
def value():
    import job
    return [job.VALUE, job.__file__]

said = []
for each in wanted:
    resource, _, environment = each.partition(" ")
    try:
        said.append(ray.get(value.options(resources={resource: 1}, runtime_env=json.loads(environment)).remote()))
    except ray.exceptions.RuntimeEnvSetupError as error:
        said.append(str(error))
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Cluster]:
    with ray_cluster(tmp_path_factory.mktemp("cluster"), shared / "cache") as found:
        yield found


def driver(cluster: Cluster, folder: Path, code: str, *arguments: object) -> Any:
    """What a job prints."""
    done = subprocess.run(
        ["python", "-c", code, cluster.address, *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
        env=dict(cluster.settings),
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_jobs_run_in_the_pushed_environment_and_see_an_edit(tmp_path: Path, cluster: Cluster) -> None:
    """One test, since a cluster and an environment with Ray take half a minute to make."""
    need("ps")
    layout, project, elsewhere = tmp_path / "layout", tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    prefix = link_distributions(venv(tmp_path / "env", by="uv"), "ray", leave_out=UNUSED_BY_WORKERS)
    answer = driver(cluster, elsewhere, EDITS, prefix, f"oci:{layout}:v1", project)

    place = f"/opt/env/{SITE_ON_NODES}/job.py"
    one, two = ["one", place, "/opt/env"], ["two", place, "/opt/env"]
    assert answer["said"] == [one, two, one], "an actor keeps its environment, and a new one sees the edit"
    first, second = answer["first"], answer["second"]
    # What nodes without the plugin use, with the program on their PATH.
    assert first["py_executable"] == f"lamella run {first['lamella']} -- python"
    assert first["lamella"].startswith(f"oci:{layout}:v1@sha256:")

    wrong = {"lamella": f"oci:{layout}:v9"}
    misspelt = {"lamela": first["lamella"]}
    jobs = [
        ("frees", first),
        ("frees", wrong),
        ("frees", misspelt),
        ("keeps", {"py_executable": first["py_executable"]}),
    ]
    answers = driver(cluster, elsewhere, NEXT_JOB, *(f"{on} {json.dumps(env)}" for on, env in jobs))
    freed, error, unknown, plain = answers
    assert (freed, plain) == (one[:2], one[:2])
    assert error.splitlines()[-1] == f"lamella.layers.errors.NotFound: {layout}: no tag 'v9' in the layout; it has v1"

    assert unknown.splitlines()[-1].endswith("runtime_env field 'lamela': unknown; did you mean lamella?")

    (layout / "blobs").rename(layout / "away")
    again = driver(cluster, elsewhere, NEXT_JOB, f"keeps {json.dumps(second)}")
    assert again == [two[:2]], "a second job on the node downloads nothing"

    # The node's cache keeps nothing that no job uses.
    _wait_until_empty(cluster.stores[1] / "layers/sha256")
    assert os.listdir(cluster.stores[0] / "layers/sha256")


def _wait_until_empty(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while left := os.listdir(folder):
        assert time.monotonic() < deadline, left
        threading.Event().wait(0.2)


def test_no_process_outlives_the_test_that_started_it(tmp_path: Path) -> None:
    """Daemons as Ray's, in sessions of their own, also if the test's process is killed."""
    marker = f"left-{os.getpid()}"
    daemon = f"setsid bash -c 'echo started; exec -a {marker} sleep 600' & exec sleep 600"
    code = (
        "import os, signal, subprocess\nfrom support.supervised import supervised\n"
        f"with supervised(['bash', '-c', {daemon!r}], stdout=-1) as process:\n"
        "    assert process.stdout.readline() == 'started\\n'\n"
        f"    listed = subprocess.check_output(['ps', '-eo', 'args'], text=True)\n"
        f"    print(process.pid, {marker!r} in listed, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    tests = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": tests},
    )
    supervisor, was_there = done.stdout.split()
    assert was_there == "True", done.stderr
    deadline = time.monotonic() + 60
    while os.path.exists(f"/proc/{supervisor}"):
        assert time.monotonic() < deadline
        threading.Event().wait(0.05)
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert marker not in listed
    with supervised(["sh", "-c", "exit 3"]) as process:
        assert process.wait() == 3
