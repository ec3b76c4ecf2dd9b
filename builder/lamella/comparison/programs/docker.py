"""A Docker engine of the comparison's own: its images, caches and containers are in one folder, apart from the user's."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.programs.versions import version
from lamella.comparison.scratch import short_folder
from lamella.layers.settings.homes import expanded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.programs.commands import Commands

HOW = "sudo apt install docker.io, or podman"
TITLE = "Docker"
PROGRESS = ("--progress", "plain")
"""Flags of `build` for one line a step."""


@dataclass(frozen=True, slots=True)
class Docker:
    """A client with its engine."""

    commands: Commands
    client: str
    environment: dict[str, str]
    folder: str
    """The engine's data."""

    def __call__(self, *arguments: str, cwd: str | None = None, stdin: str | None = None) -> str:
        """Run `docker ARGUMENTS`, and return its standard output."""
        return self.commands.run([self.client, *arguments], env=self.environment, cwd=cwd, stdin=stdin)


def missing() -> str | None:
    """Return what this machine lacks to run an engine, and how to get it."""
    if not shutil.which("docker") or not shutil.which("dockerd") or not shutil.which("containerd"):
        lacking = next(each for each in ("docker", "dockerd", "containerd") if not shutil.which(each))
        return f"{lacking}: not installed; {HOW}"
    if os.geteuid() != 0:
        return "dockerd: requires root for an engine apart from yours; repeat with sudo"
    if not client():
        return "docker: its BuildKit needs buildx; sudo apt install docker-buildx, or docker.io of Debian 12"
    return None


@functools.cache
def client() -> str:
    """Return the first docker on PATH that builds with BuildKit, or an empty string."""
    for folder in os.get_exec_path():
        program = os.path.join(folder, "docker")
        if os.access(program, os.X_OK) and _has_buildkit(program):
            return program
    return ""


def versions() -> dict[str, str]:
    """Return the versions of client, engine and containerd."""
    return {
        "docker": version([client(), "--version"]),
        "dockerd": version(["dockerd", "--version"]),
        "containerd": version(["containerd", "--version"]),
    }


def _has_buildkit(program: str) -> bool:
    if int(version([program, "--version"]).partition(".")[0] or 0) < 23:
        return True  # Built into the client.
    return subprocess.run([program, "buildx", "version"], capture_output=True, check=False).returncode == 0


@contextlib.contextmanager
def engine(
    commands: Commands,
    folder: str,
    place: str = "",
    compression: str = "gzip",  # noqa: ARG001
) -> Iterator[Docker]:
    """Run containerd and dockerd with their files in `folder` until the context is left.

    `place`: folder of the machine that they belong to. They have no bridge: builds and containers use the host's network,
    and no rule of the machine's firewall changes. `compression` is for podman: the image store of dockerd pushes gzip alone.
    """
    os.makedirs(folder, exist_ok=True)
    with contextlib.ExitStack() as stack:
        short = stack.enter_context(short_folder())
        config = os.path.join(folder, "containerd.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f'version = 2\nroot = "{folder}/containerd"\nstate = "{short}/state"\n'
                f'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "{short}/containerd.sock"\n'
            )
        stack.enter_context(
            commands.daemon(["containerd", "--config", config], "containerd successfully booted", place=place)
        )
        dockerd = ["dockerd", "--containerd", f"{short}/containerd.sock", "--host", f"unix://{short}/docker.sock"]
        dockerd += ["--data-root", f"{folder}/docker", "--exec-root", f"{short}/exec", "--pidfile", f"{short}/pid"]
        dockerd += ["--bridge", "none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        # The machine's daemon.json is for the user's own engine.
        engine_settings = os.path.join(folder, "daemon.json")
        with open(engine_settings, "w", encoding="utf-8") as file:
            file.write("{}\n")
        dockerd += ["--config-file", engine_settings]
        stack.enter_context(commands.daemon(dockerd, "API listen on", place=place))
        settings = os.path.join(folder, "client")
        os.makedirs(settings, exist_ok=True)
        plugins = os.path.join(os.environ.get("DOCKER_CONFIG", expanded("~/.docker")), "cli-plugins")
        if os.path.isdir(plugins) and not os.path.lexists(f"{settings}/cli-plugins"):
            os.symlink(plugins, f"{settings}/cli-plugins")
        environment = {
            "DOCKER_HOST": f"unix://{short}/docker.sock",
            "DOCKER_CONFIG": settings,
            "DOCKER_BUILDKIT": "1",
        }
        yield Docker(commands, client(), environment, folder)
