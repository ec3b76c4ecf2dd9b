"""A Dask cluster on hosts without Python, from a script, with a real registry."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any

import pytest

import lamella
from support.agents import wait_for
from support.distribution import distribution
from support.hosts import hosts, ssh
from support.installed import base_python, install, venv, wheel
from support.node_part import node_file
from support.own_distributions import link_distributions
from support.processes import DEADLINE, Lines, started
from support.slow_line import SlowLine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.hosts import Host

pytestmark = [pytest.mark.engine, pytest.mark.root]

ROUND_TRIP = 0.05
"""Seconds on the line between the registry and everybody else."""
PAGE = Path(__file__).parent.parent.parent / "docs/how-to/dask.md"
_BEFORE = """
import glob, json, sys
sys.path += {paths!r}
import httpx

def priced(number):
    return [shop.price(number), httpx.__version__, sys.prefix, glob.glob("/usr/bin/*")]
"""
_AFTER = """
    def synced(reference=None):
        done = sync(client, reference)
        return [done.reference, done.moved, done.restarted]

    def close():
        client.close()
        cluster.close()

    acts = {
        "run": lambda: client.gather(client.map(priced, range(4), pure=False)),
        "by-name": lambda: client.submit(shop.price, 3, pure=False).result(),
        "workers": lambda: len(client.nthreads()),  # asks the scheduler; scheduler_info may be two seconds old
        "sync": synced,
        "close": close,
    }
    for line in sys.stdin:
        act, *arguments = line.split()
        try:
            answer = acts[act](*arguments)
        except Exception as error:
            answer = [type(error).__name__, str(error)]
        print(json.dumps(answer), flush=True)
"""


@dataclass
class Site:
    """A caller's environment and project, hosts, and a registry."""

    folder: Path
    hosts: dict[str, Host]
    registry: str
    prefix: Path
    cache: Path

    def write(self, price: str) -> None:
        """Edit the local package."""
        package = self.folder / "project" / "shop"
        package.mkdir(parents=True, exist_ok=True)
        (self.folder / "project" / "pyproject.toml").write_text('[project]\nname = "shop"\nversion = "1"\n')
        (package / "__init__.py").write_text(f"def price(number):\n    return {price}\n")

    def upgrade(self, version: str) -> None:
        """Install another httpx."""
        files = {"httpx.py": f"__version__ = {version!r}\n"}
        install(self.prefix, wheel(self.folder / "wheels", "httpx", version, files), by="uv", options=["--reinstall"])

    @contextmanager
    def script(self) -> Iterator[Script]:
        """Run the program of the page, and then what the test asks for."""
        paths = [*map(os.path.dirname, lamella.__path__), *(path for path in sys.path if "site-packages" in path)]
        program = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
        path = self.folder / "project" / "script.py"
        path.write_text(_BEFORE.format(paths=paths) + program.replace("localhost:5000", self.registry) + _AFTER)
        environment = {
            **os.environ,
            "PATH": f"{self.folder}/hosts/bin:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "LAMELLA_CACHE": str(self.cache),
        }
        command = [str(self.prefix / "bin/python"), str(path)]
        log = self.folder / "script.log"
        with (
            log.open("w") as errors,
            started(command, stdin=PIPE, stdout=PIPE, stderr=errors, cwd=path.parent, env=environment) as process,
        ):
            yield Script(process, log)

    def processes(self, *names: str) -> set[int]:
        """The processes on these hosts, or on all."""
        spaces = [self.hosts[name].namespace for name in names or self.hosts]
        listed = [
            subprocess.run(["ip", "netns", "pids", space], check=True, capture_output=True, text=True).stdout
            for space in spaces
        ]
        return {int(number) for number in " ".join(listed).split()}


@dataclass
class Script:
    """The running script."""

    process: subprocess.Popen[str]
    log: Path

    def __post_init__(self) -> None:
        assert self.process.stdout
        self._lines = Lines(self.process.stdout, 300)

    def answer(self) -> Any:
        """Read what it prints."""
        line = next(self._lines, "")
        if not line:
            pytest.fail(self.log.read_text())
        return json.loads(line)

    def do(self, name: str) -> Any:
        """Let it do something, and read its answer."""
        self.begin(name)
        return self.answer()

    def begin(self, name: str) -> None:
        """Let it begin something."""
        assert self.process.stdin
        self.process.stdin.write(f"{name}\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("dask")
    (folder / "hosts").mkdir()
    prefix = link_distributions(venv(folder / "project" / ".venv", by="uv", python=base_python()), "distributed")
    program = node_file(shared)
    names = ["head", "node1", "node2"]
    with (
        distribution() as registry,
        SlowLine(registry, ROUND_TRIP).serving() as far,
        hosts(folder / "hosts", names, port := int(far.rpartition(":")[2]), program, shared / "cache") as made,
    ):
        ssh(folder / "hosts")
        yield Site(folder, made, f"localhost:{port}", prefix, shared / "cache")


def test_an_edit_and_an_upgrade_reach_workers_on_hosts_without_python(site: Site) -> None:
    site.write("2 * number")
    site.upgrade("1.0")
    with site.script() as script:
        assert script.answer() == [0, 2, 4, 6]
        assert script.do("run") == [[2 * number, "1.0", "/opt/env", ["/usr/bin/lamella"]] for number in range(4)]
        site.write("3 * number")
        site.upgrade("2.0")
        reference, moved, restarted = script.do("sync")
        assert restarted
        # Two small packages and the manifests, of an environment of 20 MB.
        assert 0 < moved < 100_000
        assert script.do("run") == [[3 * number, "2.0", "/opt/env", ["/usr/bin/lamella"]] for number in range(4)]
        assert script.do("by-name") == 9
        assert script.do("sync") == [reference, 0, False]
        assert script.do("close") is None
        assert site.processes() == set()


def test_a_lost_worker_registry_or_caller_leaves_no_wrong_result_and_no_process(site: Site, tmp_path: Path) -> None:
    site.write("5 * number")
    site.upgrade("5.0")
    with site.script() as script:
        assert script.answer() == [0, 5, 10, 15]
        for pid in site.processes("node2"):
            os.kill(pid, signal.SIGKILL)
        assert script.do("by-name") == 15
        reference, _, restarted = script.do("sync")
        assert (script.do("workers"), restarted) == (2, False)

        site.write("7 * number")
        command = site.hosts["node2"].root / "usr/bin/lamella"
        command.rename(f"{command}-away")
        error, message = script.do("sync")
        assert error == "ClusterError"
        assert message.startswith("python on node2: did not start: ")
        assert message.endswith(f"'lamella': No such file or directory; the cluster still runs {reference}")
        assert script.do("by-name") == 15
        command.with_name("lamella-away").rename(command)

        with distribution(folder=str(tmp_path / "first")) as registry:
            script.begin(f"sync {registry}/team/envs:me")
            wait_for_upload(tmp_path / "first")
        assert script.answer()[0] in {"Unreachable", "Refused"}
        assert script.do("by-name") == 15

        with distribution(folder=str(tmp_path / "second")) as registry:
            script.begin(f"sync {registry}/team/envs:me")
            wait_for_upload(tmp_path / "second")
            script.process.kill()
            script.process.wait(DEADLINE)
        wait_for(lambda: not site.processes())
    with site.script() as script:
        assert script.answer() == [0, 7, 14, 21]
        assert script.do("by-name") == 21


def wait_for_upload(folder: Path) -> None:
    """Return when a blob is on its way to the registry whose files are in `folder`."""
    wait_for(lambda: any(folder.glob("docker/registry/v2/repositories/team/envs/_uploads/*/data")))
