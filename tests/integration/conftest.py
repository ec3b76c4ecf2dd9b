"""What the acceptance tests share: a scientific environment, a minimal Debian without Python, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engines import need, need_root
from support.once import Lamella, once
from support.pods import make_images, node

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.pods import Node


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers of one run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base


@pytest.fixture(scope="session")
def science(shared: Path) -> Path:
    """A virtual environment with numpy, pandas, scikit-learn and what they bring."""
    prefix = shared / "science" / "env"
    with once(prefix) as mine:
        if mine:
            subprocess.run([sys.executable, "-m", "venv", prefix], check=True)
            uv = Path(sys.executable).with_name("uv")
            packages = ["numpy", "pandas", "scikit-learn", "pyarrow", "six==1.16.0", "httpx"]
            subprocess.run([uv, "pip", "install", "-q", "--python", prefix / "bin/python", *packages], check=True)
    return prefix


@pytest.fixture(scope="session")
def debian(shared: Path) -> Path:
    """The root file system of a minimal Debian: glibc, a shell, and no Python at all."""
    need_root()
    root = shared / "debian" / "root"
    with once(root) as mine:
        if mine:
            subprocess.run(
                [need("mmdebstrap"), "--quiet", "--variant=essential", "bookworm", root],
                check=True,
                stdin=subprocess.DEVNULL,
            )
    assert not list(root.glob("usr/bin/python*"))
    return root


@pytest.fixture
def lamella(tmp_path: Path, shared: Path) -> Lamella:
    """Runs one command line, with a store of the test's own and the run's common layer cache, in a folder without code."""
    nowhere = tmp_path / "nowhere"
    nowhere.mkdir()

    def call(*arguments: object, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
        environment |= {"LAMELLA_STORE": str(tmp_path / "store"), "LAMELLA_CACHE": str(shared / "cache")} | settings
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd=nowhere,
            stdin=subprocess.DEVNULL,
        )

    return call


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory, shared: Path, debian: Path) -> Iterator[Node]:
    """A node that runs pods, one for each module of tests."""
    images = make_images(shared / "pods", debian)
    with node(tmp_path_factory.mktemp("node"), images) as made:
        yield made
