"""`lamella compare` with Ray's own runtime environments, as a user runs it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from integration.test_compare import base_images, compare, compared, left, prefix
from support.engines import need
from support.installed import venv
from support.own_distributions import link_distributions
from support.processes import DEADLINE
from support.ray_cluster import UNUSED, need_ray

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.engine]
__all__ = ["base_images", "prefix"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with a Ray that has little more than it needs: Ray copies its environment for each set of packages."""
    need("docker-registry")
    need_ray()
    folder = venv(tmp_path_factory.mktemp("ray") / "env")
    link_distributions(folder, "ray", "grpcio", "virtualenv", "pip", leave_out=UNUSED)
    program = folder / "bin/ray"
    program.write_text(f"#!{folder}/bin/python\nfrom ray.scripts.scripts import main\nmain()\n")
    program.chmod(0o755)
    return os.pathsep.join((str(program.parent), os.environ["PATH"]))


def test_ray_installs_new_packages_on_a_node_and_takes_an_edit_without_them(
    prefix: Path, path: str, tmp_path: Path
) -> None:
    document = compared(prefix, tmp_path, "--workflow=ray-pip", "--story=new", "--story=edit", path=path)
    new, edit = document["runs"]
    assert (new["failed"], edit["failed"]) == (None, None)
    assert new["downloaded"] > 2_000_000
    assert edit["downloaded"] < 10_000
    assert new["node_bytes"] > 2_000_000 > edit["node_bytes"]
    assert document["workflows"][0]["programs"].keys() == {"ray"}
    assert document["workflows"][0]["steps"] == "copy Ray's own environment, install, import"
    assert left(tmp_path) == []


def test_an_interruption_while_ray_makes_an_environment_leaves_nothing(prefix: Path, path: str, tmp_path: Path) -> None:
    with compare(prefix, tmp_path, "--workflow=ray-pip", "--story=new", path=path) as process:
        while not list((tmp_path / "scratch").glob("*/session/node/ray/session_*/runtime_resources/pip/*/virtualenv")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=DEADLINE)
    assert process.returncode == 128 + signal.SIGTERM
    assert left(tmp_path) == []
