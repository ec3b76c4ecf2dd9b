"""podman in Docker's place: its images, caches and containers are in one folder, apart from the user's."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.programs.versions import version
from lamella.comparison.scratch import short_folder, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.programs.commands import Commands

TITLE = "Podman"
PROGRESS: tuple[str, ...] = ()
"""Flags of `build` for one line a step."""
_RUNTIMES = ("crun", "runc")
_MOST = 16384
"""Files and processes of a container, as far as this process has as many."""
_OF_A_REGISTRY = frozenset({"build", "pull", "push"})


@dataclass(frozen=True, slots=True)
class Podman:
    """podman with its storage. It has no daemon."""

    commands: Commands
    flags: tuple[str, ...]
    environment: dict[str, str]

    def __call__(self, *arguments: str, cwd: str | None = None, stdin: str | None = None) -> str:
        """Run `podman ARGUMENTS`, and return its standard output."""
        verb, *rest = arguments
        # Registries and lines of a comparison are on loopback, over plain HTTP, which Docker takes by itself.
        plain = ["--tls-verify=false"] if verb in _OF_A_REGISTRY else []
        command = ["podman", *self.flags, verb, *plain, *rest]
        return self.commands.run(command, env=self.environment, cwd=cwd, stdin=stdin)


def missing() -> str | None:
    """Return what this machine lacks to run it, and how to get it."""
    if not shutil.which("podman"):
        return "podman: not installed; sudo apt install podman"
    if not _runtime():
        return "crun: not installed, nor runc; sudo apt install crun"
    if os.geteuid() != 0:
        return "podman: requires root for storage that is measured as Docker's is; repeat with sudo"
    return None


def versions() -> dict[str, str]:
    """Return the versions of podman and its runtime."""
    runtime = _runtime()
    return {"podman": version(["podman", "--version"]), os.path.basename(runtime): version([runtime, "--version"])}


@contextlib.contextmanager
def engine(
    commands: Commands,
    folder: str,
    place: str = "",  # noqa: ARG001
    compression: str = "gzip",
) -> Iterator[Podman]:
    """Give a podman whose files are in `folder`, and that compresses layers so, until the context is left.

    `place` is for engines with a daemon.
    """
    os.makedirs(os.path.join(folder, "tmp"), exist_ok=True)
    with short_folder() as short:
        settings = os.path.join(folder, "containers.conf")
        with open(settings, "w", encoding="utf-8") as file:
            file.write(f"[containers]\ndefault_ulimits = [{', '.join(_limits())}]\n")
            # In place of a flag of `push`, with which newer versions compress the base image anew as well.
            file.write(f'[engine]\ncompression_format = "{compression}"\n')
        logins = os.path.join(folder, "auth.json")
        with open(logins, "w", encoding="utf-8") as file:
            file.write("{}\n")
        try:
            yield Podman(
                commands,
                (
                    "--root", os.path.join(folder, "storage"), "--runroot", os.path.join(short, "run"),
                    "--tmpdir", os.path.join(short, "tmp"), "--storage-driver", "overlay", "--runtime", _runtime(),
                    "--cgroup-manager", "cgroupfs", "--events-backend", "none",
                ),
                # The cache mounts of a build are in TMPDIR; the user's own registries and storage are not for this.
                {
                    "TMPDIR": os.path.join(folder, "tmp"),
                    "CONTAINERS_CONF": settings,
                    "REGISTRY_AUTH_FILE": logins,
                },
            )  # fmt: skip
        finally:
            # It mounts its overlay folder on itself while it is used.
            unmount(folder)
            unmount(short)


def _runtime() -> str:
    return next((found for name in _RUNTIMES if (found := shutil.which(name))), "")


def _limits() -> list[str]:
    """Return limits for containers that need no privilege: podman's own are above what a limited root may give."""
    found = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        own = resource.getrlimit(number)[0]
        most = _MOST if own == resource.RLIM_INFINITY else min(own, _MOST)
        found.append(f'"{name}={most}:{most}"')
    return found
