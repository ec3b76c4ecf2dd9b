"""Ray's own runtime environments: the node's Ray installs the packages with pip when a job asks for them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison import programs
from lamella.comparison.programs.scripts import interpreter, script
from lamella.comparison.scratch import end_processes, short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Place, Session

DRIVER = "ray_job.py"
_NEEDED = ("ray", "grpc", "virtualenv", "pip")
"""Modules of `ray[default]`, and the installer, that Ray makes environments with."""
_PROBE = """\
import importlib.metadata, importlib.util, json, sys
lacking = [name for name in sys.argv[1:] if not importlib.util.find_spec(name)]
ray = "" if "ray" in lacking else importlib.metadata.version("ray")
python = "%d.%d" % sys.version_info[:2]
print(json.dumps({"python": python, "is_virtual": sys.prefix != sys.base_prefix, "lacking": lacking, "ray": ray}))
"""
_PORTS = ("ray-client-server", "dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")
"""Those with a fixed default, which the second Ray of a machine could not have."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A driver below `uv run` would get an environment of uv's in place of the one that is asked for.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # A busy machine takes longer than the 15 and 60 seconds of Ray's defaults.
    "RAY_raylet_start_wait_time_s": "400",
    "RAY_agent_register_timeout_ms": "400000",
    "RAY_worker_register_timeout_seconds": "400",
    # The machine's own indexes are not for this.
    "PIP_CONFIG_FILE": os.devnull,
}


@dataclass(frozen=True, slots=True)
class Ray:
    """An installed Ray."""

    program: str
    interpreter: str
    """The Python that runs it."""
    python: str
    """Version of that Python: `3.11`."""
    is_virtual: bool
    """Whether it is in a virtual environment, a copy of which is then the start of each that Ray makes."""
    lacking: tuple[str, ...]
    """Modules that it needs, and cannot import."""
    version: str


@dataclass(frozen=True, slots=True)
class RayPip:
    """The workflow."""

    name: str = "ray-pip"
    title: str = "Ray, runtime_env with pip"
    byte_code: bool | None = True
    compression: str | None = "deflate"
    source: str = "https://docs.ray.io/en/latest/ray-core/handling-dependencies.html"
    uses_base_image: bool = False

    @property
    def steps(self) -> str:
        """A few words."""
        found = _ray(script("ray"))
        return "copy Ray's own environment, install, import" if found and found.is_virtual else "install, import"

    def missing(self, original: Original, _options: CompareOptions) -> str | None:
        """Return what it lacks."""
        if original.no_wheels:
            return original.no_wheels
        python = original.python_version
        how = f"pipx install --force --python python{python} 'ray[default]'"
        program = script("ray")
        if not program:
            return f"ray: not installed; {how.replace(' --force', '')}"
        found = _ray(program)
        if found is None:
            return f"ray: {program} does not run; {how}"
        if found.python != python:
            return f"ray: on Python {found.python}, and the environment on {python}; {how}"
        if found.lacking:
            return f"ray: cannot import {', '.join(found.lacking)}; {how}"
        own = next((each.version for each in original.distributions if each.normalised == "ray"), found.version)
        if own != found.version:
            return f"ray: {found.version}, and {own} in the environment, which no job can change; {how[:-1]}=={own}'"
        return None

    def programs(self) -> Mapping[str, str]:
        """Return the version of Ray."""
        found = _ray(script("ray"))
        return {"ray": found.version} if found else {}

    @contextlib.contextmanager
    def opened(self, session: Session) -> Iterator[OpenedRayPip]:
        """Put the driver into a folder of its own: Ray puts that on the path of the job's processes."""
        found = _ray(script("ray"))
        assert found
        folder = os.path.join(session.laptop.folder, "driver")
        os.makedirs(folder)
        driver = shutil.copy2(os.path.join(os.path.dirname(programs.__file__), DRIVER), folder)
        yield OpenedRayPip(session, found, driver, secrets.token_hex(32), {})


@dataclass(frozen=True, slots=True)
class OpenedRayPip:
    """The workflow in a session."""

    session: Session
    ray: Ray
    driver: str
    token: str
    """Without it, a Ray of the session runs no job."""
    addresses: dict[str, str]
    """HOST:PORT of each node's Ray, by the node's name."""

    def publish(self, tag: str, meter: Measure) -> None:
        """Do nothing: the wheels are on the index, and the code goes with the job."""

    @contextlib.contextmanager
    def node(self, place: Place) -> Iterator[None]:
        """Start a Ray with its files in the node's folder."""
        folder = os.path.join(place.folder, "ray")
        os.makedirs(os.path.join(folder, "tmp"))
        with contextlib.ExitStack() as stack:
            # Ray's sockets lie below this folder too.
            temporary = os.path.join(stack.enter_context(short_folder()), "r")
            os.symlink(folder, temporary)
            # Also what a Ray left that did not start.
            stack.callback(end_processes, folder)
            stack.enter_context(
                self.session.commands.daemon(
                    _start(self.ray, temporary), "--block", env=self._settings(folder), cwd=folder, place=place.folder
                )
            )
            # At once: to end by itself takes it seconds.
            stack.callback(end_processes, folder)
            with open(os.path.join(folder, "ray_current_cluster"), encoding="utf-8") as file:
                self.addresses[place.name] = file.read().strip()
            yield

    def deliver(self, place: Place, _tag: str, check: Check, meter: Measure) -> None:
        """Run a job in the environment of the published packages and code, which Ray makes unless it has it."""
        subject = self.session.subject
        with open(subject.requirements, encoding="utf-8") as file:
            packages = file.read().splitlines()
        assert place.index
        # Ray's own options of pip come first. The requirements are complete.
        options = ["--disable-pip-version-check", "--no-cache-dir", "--no-deps"]
        options += ["--index-url", f"http://{place.index.host}/simple/"]
        job = {
            "address": self.addresses[place.name],
            "runtime_env": {
                "pip": {"packages": packages, "pip_install_options": options},
                "working_dir": subject.code,
                "config": {"setup_timeout_seconds": -1},  # As long as it takes.
            },
            "program": check.program(),
        }
        path = os.path.join(place.folder, "job.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(job, file)
        with meter.step("install", place.folder):
            self.session.commands.run(
                [self.ray.interpreter, self.driver, path], env=self._settings(os.path.join(place.folder, "ray"))
            )

    def _settings(self, folder: str) -> dict[str, str]:
        return {
            **_SETTINGS,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "TMPDIR": os.path.join(folder, "tmp"),
        }


def _start(ray: Ray, temporary: str) -> list[str]:
    """Return the command that starts a Ray on loopback, beside others, and stays in the foreground."""
    command = [ray.program, "start", "--head", "--block", "--port=0", "--node-ip-address=127.0.0.1"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={temporary}"]
    command += ["--include-dashboard=false", "--disable-usage-stats"]
    # Of many Rays on one machine, each has room for the one task that it runs.
    command += ["--num-cpus=1", "--object-store-memory=80000000"]
    return command + [f"--{name}-port={port}" for name, port in zip(_PORTS, _free_ports(len(_PORTS)), strict=True)]


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]


@functools.cache
def _ray(program: str) -> Ray | None:
    """Return the Ray whose program is at `program`; None if that does not run, as after its Python was removed."""
    try:
        python = interpreter(program)
        command = [python, "-E", "-c", _PROBE, *_NEEDED]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return Ray(program, python, found["python"], found["is_virtual"], tuple(found["lacking"]), found["ray"])
