from __future__ import annotations

import sys
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from lamella.comparison.options import CompareOptions
from lamella.comparison.subject.distributions import Distribution
from lamella.comparison.subject.subject import Original
from lamella.comparison.workflows.ray_pip import RayPip
from support.engines import missing
from support.installed import base_python, venv

if TYPE_CHECKING:
    from pathlib import Path

PYTHON = "{}.{}".format(*sys.version_info)
HOW = f"pipx install --force --python python{PYTHON} 'ray[default]'"


def lacks(*, python: str = PYTHON, ray: str = "", no_wheels: str | None = None) -> str | None:
    """What the workflow lacks for an environment of this Python, with this version of Ray in it."""
    pack = Distribution("ray" if ray else "pack", ray or "1.0", "/env/pack.dist-info")
    original = Original(
        folder="/original", place="/place", is_conda=False, wheels="/wheels", no_wheels=no_wheels, distributions=(pack,),
        sizes={}, small=pack, large=pack, modules={}, base_prefix="/usr", python="/usr/bin/python3",
        python_version=python, byte_code=False,
    )  # fmt: skip
    return RayPip().missing(original, CompareOptions())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path


def put_ray(folder: Path, interpreter: str) -> None:
    """Put a script of Ray's with this interpreter into `folder`."""
    program = folder / "ray"
    program.write_text(f"#!{interpreter}\nfrom ray.scripts.scripts import main\n")
    program.chmod(0o755)


def test_without_ray_it_is_named_with_how_to_get_it_for_the_environment_s_python() -> None:
    assert lacks(python="3.12") == "ray: not installed; pipx install --python python3.12 'ray[default]'"


def test_an_environment_without_wheels_is_named_first() -> None:
    assert lacks(no_wheels="numpy: a conda package") == "numpy: a conda package"


def test_a_ray_on_another_python_is_named(folder: Path) -> None:
    put_ray(folder, base_python())
    assert lacks(python="3.5") == f"ray: on Python {PYTHON}, and the environment on 3.5; " + HOW.replace(PYTHON, "3.5")


def test_a_ray_whose_python_is_gone_is_named(folder: Path) -> None:
    put_ray(folder, f"{folder}/gone/bin/python3")
    assert lacks() == f"ray: {folder}/ray does not run; {HOW}"


def test_modules_that_ray_needs_for_environments_are_named(folder: Path) -> None:
    put_ray(folder, f"{venv(folder / 'env')}/bin/python")
    assert lacks() == f"ray: cannot import ray, grpc, virtualenv, pip; {HOW}"


def test_another_version_of_ray_in_the_environment_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not all(map(find_spec, ("ray", "grpc", "virtualenv", "pip"))):
        missing("Ray is not here: install the project with its test extra")
    here = version("ray")
    monkeypatch.undo()
    put_ray(folder, sys.executable)
    monkeypatch.setenv("PATH", str(folder))
    assert lacks() is None
    assert lacks(ray=here) is None
    assert lacks(ray="2.1.0") == (
        f"ray: {here}, and 2.1.0 in the environment, which no job can change; {HOW[:-1]}==2.1.0'"
    )


@pytest.mark.parametrize("is_virtual", [False, True])
def test_a_ray_in_a_virtual_environment_is_stated_since_ray_copies_that(is_virtual: bool, folder: Path) -> None:
    put_ray(folder, f"{venv(folder / 'env')}/bin/python" if is_virtual else base_python())
    assert RayPip().steps == ("copy Ray's own environment, install, import" if is_virtual else "install, import")
