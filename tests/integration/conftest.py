"""What the acceptance tests share: a scientific environment, a minimal Debian without Python, and the command line."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from support.command_line import command_line
from support.engines import need, need_root
from support.installed import uv, venv
from support.once import once
from support.pods import make_images, node
from support.short_folders import short_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.once import Lamella
    from support.pods import Node


@pytest.fixture(scope="session")
def science(shared: Path) -> Path:
    """A virtual environment with numpy, pandas, scikit-learn and what they bring."""
    prefix = shared / "science" / "env"
    with once(prefix) as mine:
        if mine:
            subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
            packages = ["numpy", "pandas", "scikit-learn", "pyarrow", "six==1.16.0", "httpx"]
            subprocess.run([uv(), "pip", "install", "-q", "--python", prefix / "bin/python", *packages], check=True)
    return prefix


@pytest.fixture(scope="session")
def numeric(shared: Path) -> Path:
    """A virtual environment with numpy: compiled modules with shared libraries of their own."""
    prefix = shared / "numeric" / "env"
    with once(prefix) as mine:
        if mine:
            venv(prefix, by="uv")
            subprocess.run([uv(), "pip", "install", "-q", "--python", prefix / "bin/python", "numpy"], check=True)
    return prefix


@pytest.fixture(scope="session")
def debian(shared: Path) -> Path:
    """The root file system of a minimal Debian: glibc, a shell, and no Python at all."""
    need_root()
    root = shared / "debian" / "root"
    with once(root) as mine:
        if mine:
            # Unpacked alone: an environment has to run without what a configured system offers.
            packages = "--include=dash,coreutils,libc-bin"
            command = [need("mmdebstrap"), "--quiet", "--variant=extract", packages, "bookworm", str(root)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            for name in ("dev", "opt", "proc", "sys", "tmp"):
                (root / name).mkdir(exist_ok=True)
    assert not list(root.glob("usr/bin/python*"))
    return root


@pytest.fixture
def lamella(tmp_path: Path, shared: Path) -> Lamella:
    """Runs one command line, with a store of the test's own and the layer cache of the run."""
    return command_line(tmp_path, shared / "cache")


@pytest.fixture(scope="module")
def kubelet(shared: Path, debian: Path) -> Iterator[Node]:
    """A node that runs pods, one for each module of tests."""
    images = make_images(shared / "pods", debian)
    with short_folder() as folder, node(folder, images) as made:
        yield made
