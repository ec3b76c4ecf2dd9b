"""`lamella compare` of a conda environment, as a user runs it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from integration.test_compare import base_images, compared, left
from integration.test_compare_images import small_image
from support.conda import conda_environment, conda_package, python_package
from support.engines import need, need_root
from support.installed import uv

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.engine]
__all__ = ["base_images", "small_image"]


def files(name: str, data: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """A package as conda's archives hold it."""
    info = f"site-packages/{name}-1.0.dist-info"
    rows = "".join(f"{path},,\n" for path in (*data, f"{name}-1.0.dist-info/METADATA", f"{name}-1.0.dist-info/RECORD"))
    return {
        **{f"site-packages/{path}": content for path, content in data.items()},
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/RECORD": rows,
    }


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conda environment of an interpreter and two packages, the larger with 2 MB."""
    channel = tmp_path_factory.mktemp("conda") / "channel"
    python_package(channel)
    small = files("small", {"small/__init__.py": "VALUE = 1\n" * 8000})
    large = files("large", {"large/__init__.py": "", "large/data.bin": random.Random(1).randbytes(2_000_000)})
    conda_package(channel, "small", small, noarch="python", depends=["python"])
    conda_package(channel, "large", large, noarch="python", depends=["python"])
    return conda_environment(channel.parent / "env", channel, ["python", "small", "large"])


@pytest.fixture(scope="module")
def conda_pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of conda-pack's program, which no system's packages have."""
    if found := shutil.which("conda-pack"):
        return os.path.dirname(found)
    folder = tmp_path_factory.mktemp("conda-pack") / "env"
    subprocess.run([uv(), "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
    packages = ["conda-pack", "setuptools", "zstandard"]
    subprocess.run([uv(), "pip", "install", "--quiet", "--python", str(folder / "bin/python"), *packages], check=True)
    return str(folder / "bin")


def test_conda_pack_and_lamella_take_a_conda_environment_to_nodes_after_each_kind_of_change(
    prefix: Path, conda_pack: str, tmp_path: Path
) -> None:
    need("docker-registry")
    before = {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")}
    names = ("lamella", "conda-pack-gz", "conda-pack-zst")
    flags = [f"--workflow={name}" for name in (*names, "uv-cold")]
    flags += [f"--story={name}" for name in ("new", "small-upgrade", "edit")]
    path = os.pathsep.join((os.environ["PATH"], conda_pack))
    document = compared(prefix, tmp_path, *flags, path=path)
    assert [run["failed"] for run in document["runs"]] == [None] * 9
    assert document["environment"]["kind"] == "conda"
    runs = {(run["workflow"], run["story"]): run for run in document["runs"]}
    assert runs["lamella", "small-upgrade"]["uploaded"] < 1_000_000
    for name in names[1:]:
        steps = [step["name"] for step in runs[name, "new"]["steps"]]
        assert steps == ["pack", "push", "pull", "unpack", "import"]
        # All of it for any package, and nothing but the code for an edit of the code.
        for story in ("new", "small-upgrade"):
            assert runs[name, story]["uploaded"] > 2_000_000
            assert runs[name, story]["downloaded"] > 2_000_000
        assert runs[name, "edit"]["uploaded"] < 500_000
        assert runs[name, "edit"]["downloaded"] < 500_000
    reasons = {each["name"]: each["missing"] for each in document["workflows"]}
    assert reasons["uv-cold"] == "large: a conda package, which no Python index has; compare a virtual environment"
    assert {path: path.lstat().st_mtime_ns for path in prefix.rglob("*")} == before
    assert left(tmp_path) == []


def test_without_conda_pack_the_rest_is_compared_and_it_is_named_with_how_to_get_it(
    prefix: Path, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("docker-registry", "cp"):
        (tmp_path / "bin" / name).symlink_to(need(name))
    flags = ["--workflow=lamella", "--workflow=conda-pack-gz", "--story=new"]
    document = compared(prefix, tmp_path, *flags, path=str(tmp_path / "bin"))
    assert [(run["workflow"], run["failed"]) for run in document["runs"]] == [("lamella", None)]
    assert document["workflows"][1]["missing"] == "conda-pack: not installed; pipx install conda-pack"


@pytest.mark.root
def test_an_image_of_a_conda_environment_runs_with_the_interpreter_that_it_holds(
    prefix: Path, small_image: str, tmp_path: Path
) -> None:
    need_root()
    need("dockerd")
    flags = ["--workflow=docker-copy-compiled", "--story=new", "--story=edit", f"--base-image={small_image}"]
    document = compared(prefix, tmp_path, *flags)
    assert [run["failed"] for run in document["runs"]] == [None] * 2
    assert document["runs"][0]["uploaded"] > 2_000_000 > document["runs"][1]["uploaded"]
    assert left(tmp_path) == []
