"""Programs that tests drive. A missing one fails its test when CI=true, and skips it elsewhere."""

from __future__ import annotations

import os
import re
import shutil
from typing import NoReturn

import pytest

ENGINES = {
    "docker-registry": "docker-registry",
    "skopeo": "skopeo",
    "umoci": "umoci",
    "podman": "podman",
    "catatonit": "catatonit",
    "runc": "runc",
    "docker": "docker.io",
    "dockerd": "docker.io",
    "ctr": "containerd",
    "containerd": "containerd",
    "mmdebstrap": "mmdebstrap",
    "qemu-aarch64-static": "qemu-user-static",
    "qemu-x86_64-static": "qemu-user-static",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "newuidmap": "uidmap",
    "mkfs.xfs": "xfsprogs",
    "mkfs.ext4": "e2fsprogs",
    "bindfs": "bindfs",
    "zsh": "zsh",
    "fish": "fish",
    "man": "man-db",
    "ip": "iproute2",
    "java": "default-jre-headless",
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "sbatch": "slurm-client",
    "sinfo": "slurm-client",
    "ps": "procps",
    "chromium-headless-shell": "chromium-headless-shell",
}
"""Programs that a contributor's machine may well lack, with the Debian package of each (see the Makefile)."""

_running: list[pytest.Item] = []


def need(program: str) -> str:
    """Path of `program`. Fail (CI) or skip the test if it is not installed."""
    if program in ENGINES:
        _require_mark("engine", f"drives {program}")
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        missing(f"{program} is not installed: apt-get install {ENGINES.get(program, program)}")
    return found


def need_root() -> None:
    """Fail (CI) or skip the test unless it runs as root."""
    _require_mark("root", "needs root")
    if os.geteuid() != 0:
        missing("this test needs root")


def need_linux(major: int, minor: int) -> None:
    """Fail (CI) or skip the test on an older kernel."""
    release = os.uname().release
    if tuple(map(int, re.findall(r"\d+", release)[:2])) < (major, minor):
        missing(f"needs Linux {major}.{minor} or newer; this is {release}")


def missing(reason: str) -> NoReturn:
    """Fail the test when CI=true, and skip it elsewhere. `make test SYSTEM=no` skips in CI as well."""
    if os.environ.get("CI") == "true" and os.environ.get("SYSTEM") != "no":
        pytest.fail(reason)
    pytest.skip(reason)


def running(item: pytest.Item) -> None:
    """Remember the test that runs now, whose marks `need` and `need_root` hold it to."""
    _running[:] = [item]


def _require_mark(mark: str, why: str) -> None:
    # Slow tests are outside `make unit` already, which is what the mark is for.
    for item in _running:
        if not item.get_closest_marker(mark) and not item.get_closest_marker("slow"):
            pytest.fail(f"{item.name} {why}: mark it with @pytest.mark.{mark}")
