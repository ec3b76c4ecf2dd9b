"""A real Ray cluster on this machine: a head and a worker node, each with a store of its own."""

from __future__ import annotations

import os
import re
import secrets
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING

import pytest

import lamella
from support.engines import missing
from support.installed import base_python, venv
from support.once import once
from support.own_distributions import link_distributions
from support.short_folders import short_folder
from support.supervised import supervised

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

UNUSED = (
    *(f"ray/{folder}/" for folder in ("data", "jars", "llm", "rllib", "serve", "train", "tune")),
    "ray/dashboard/client/",
)
"""Parts of Ray that no test uses."""
UNUSED_BY_WORKERS = (*UNUSED, "ray/core/src/ray/gcs/", "ray/core/src/ray/raylet/")
_AGENTS = ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")

_TRIES = 3
"""A raylet gives up if one of its agents takes 15 seconds to start, as on a busy machine: see also `_FIRST`."""
_FIRST = ("nice", "-n", "-10") if os.geteuid() == 0 else ()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster."""

    address: str
    settings: Mapping[str, str]
    """Variables for drivers."""
    stores: tuple[Path, Path]
    """The head's, which keeps environments, and the worker node's, whose cache for Ray is too small for any."""


def need_ray() -> None:
    """Skip the test, or fail in CI, if Ray is not installed."""
    if not find_spec("ray"):
        if sys.version_info >= (3, 14):
            pytest.skip("Ray has no release for this Python")
        missing("Ray is not here: install the project with its test extra")


@contextmanager
def ray_cluster(folder: Path, cache: Path) -> Iterator[Cluster]:
    """Start a head, with the resource `keeps`, and a node, with the resource `frees`. Drivers build layers in `cache`."""
    need_ray()
    nodes = folder / "nodes"
    with once(nodes) as mine:
        if mine:
            _make_nodes(venv(nodes, by="uv", python=base_python()))
    stores = (folder / "head-store", folder / "node-store")
    with short_folder() as short:
        settings = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "LAMELLA_"))},
            "PATH": f"{nodes}/bin:{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "90",
            "LAMELLA_CACHE": str(cache),
        }
        plugin = {"RAY_RUNTIME_ENV_PLUGINS": '[{"class": "lamella.integrations.ray.Plugin"}]'}
        head = {**settings, **plugin, "LAMELLA_STORE": str(stores[0])}
        node = {**settings, **plugin, "LAMELLA_STORE": str(stores[1]), "RAY_RUNTIME_ENV_LAMELLA_CACHE_SIZE_GB": "0"}
        with (
            _started(
                nodes, ["--head", "--port=0", "--include-dashboard=false", f"--temp-dir={short}"], "keeps", head
            ) as address,
            _started(nodes, [f"--address={address}"], "frees", node),
        ):
            yield Cluster(address, settings, stores)


@contextmanager
def _started(nodes: Path, arguments: Sequence[str], resource: str, settings: Mapping[str, str]) -> Iterator[str]:
    agents = zip(_AGENTS, _free_ports(len(_AGENTS)), strict=True)
    options = [
        *(f"--{name}-port={port}" for name, port in agents),
        "--block",
        "--num-cpus=2",
        f'--resources={{"{resource}": 100}}',
        "--object-store-memory=80000000",
    ]
    command = [
        *_FIRST,
        f"{nodes}/bin/python",
        "-c",
        "from ray.scripts.scripts import main; main()",
        "start",
        *arguments,
        *options,
    ]
    failures = []
    for _ in range(_TRIES):
        with supervised(command, stdout=PIPE, stderr=STDOUT, env=settings) as process:
            assert process.stdout
            said = []
            for line in process.stdout:
                said.append(re.sub(r"\x1b\[\d*m", "", line))
                if "--block" in line:
                    yield (re.findall(r"--address='?([\d.]+:\d+)", "".join(said)) or [""])[0]
                    return
            failures.append("".join(said))
    raise AssertionError(f"Ray did not start: {failures}")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _make_nodes(prefix: Path) -> None:
    """What the nodes run: Ray and Lamella, without the tests' other dependencies, which Ray's many processes would import."""
    link_distributions(prefix, "ray", "urllib3", "zstandard", "cachetools", leave_out=UNUSED)
    folders = "".join(f"{Path(path).parent}\n" for path in lamella.__path__)
    (next(prefix.glob("lib/python*/site-packages")) / "lamella-of-the-tests.pth").write_text(folders)
    command = prefix / "bin/lamella"
    command.write_text(f"#!{prefix}/bin/python\nimport sys\nfrom lamella.cli.main import main\nsys.exit(main())\n")
    command.chmod(0o755)
    # Writes the byte code before it counts.
    agents = "import lamella.integrations.ray, ray.dashboard.agent, ray._private.runtime_env.agent.main"
    subprocess.run([f"{prefix}/bin/python", "-c", agents], check=True)
