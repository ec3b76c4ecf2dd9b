"""Programs that tests drive for real. In CI a missing one is a failure; elsewhere a skip that says what to install."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

DEBIAN_PACKAGE = {
    "dockerd": "docker.io",
    "ctr": "containerd",
    "mkfs.xfs": "xfsprogs",
    "mksquashfs": "squashfs-tools",
    "unsquashfs": "squashfs-tools",
    "newuidmap": "uidmap",
}


def need(program: str) -> str:
    """The path of `program`; without it the test fails in CI and is skipped elsewhere."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if not found:
        missing(f"{program} is not here: apt-get install {DEBIAN_PACKAGE.get(program, program)}")
    return found


def need_root() -> None:
    """Skips (in CI: fails) unless the test runs as root."""
    if os.geteuid() != 0:
        missing("this test changes what only root may: run it as root")


def missing(reason: str) -> NoReturn:
    """Says that something a test needs is missing: a failure in CI, a skip elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
