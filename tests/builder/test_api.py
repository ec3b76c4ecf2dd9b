"""`lamella.builder` as a script and a notebook use it."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import lamella.builder
from lamella.builder import (
    Environment,
    LamellaError,
    LayerCache,
    NotAnEnvironment,
    Pushed,
    PushOptions,
    diff,
    push,
    scan,
)
from support.installed import install, venv, wheel
from support.packages import SITE, environment, package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv with one distribution."""
    folder = tmp_path_factory.mktemp("api")
    return install(venv(folder / "env"), wheel(folder, "greet", files={"greet.py": "print('hello')\n"}))


def run_in(made: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with the interpreter of `made`, which imports Lamella and its dependencies from here."""
    folders = [os.path.dirname(folder) for folder in lamella.__path__]
    paths = [*folders, *(path for path in sys.path if path.endswith("site-packages"))]
    command = [str(made / "bin/python"), "-c", f"import sys; sys.path += {paths!r}\n{code}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_public_name_exists_and_is_listed() -> None:
    assert dir(lamella.builder) == sorted(lamella.builder.__all__)
    for name in lamella.builder.__all__:
        assert getattr(lamella.builder, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        lamella.builder.nothing  # noqa: B018


def test_importing_the_package_imports_none_of_its_modules() -> None:
    code = "import sys, lamella.builder; print([name for name in sys.modules if name.startswith('lamella.builder.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_public_function_has_more_than_seven_parameters() -> None:
    functions = {name: getattr(lamella.builder, name) for name in lamella.builder.__all__}
    counts = {
        name: len(inspect.signature(value).parameters) for name, value in functions.items() if inspect.isfunction(value)
    }
    assert counts
    assert {name: count for name, count in counts.items() if count > 7} == {}


def test_every_error_of_the_builder_is_a_lamella_error(tmp_path: Path) -> None:
    with pytest.raises(LamellaError) as caught:
        scan(str(tmp_path / "nowhere"))
    assert isinstance(caught.value, NotAnEnvironment)


@pytest.mark.slow
def test_scan_and_push_take_the_running_interpreters_environment(made: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from lamella.builder import PushOptions, push, scan
assert scan().prefix == sys.prefix == {str(made)!r}, scan().prefix
assert push("oci:{tmp_path}/layout:v1").environment.prefix == sys.prefix
"""
    done = run_in(made, code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "layout/index.json").exists()


@pytest.mark.slow
def test_push_scans_for_its_image_prefix(made: Path, tmp_path: Path) -> None:
    (made / SITE / "tool.so").write_bytes(b"\0" + os.fsencode(made) + b"/share/data\0\0\0\0")
    cache = LayerCache(str(tmp_path / "cache"))
    pushed = push(f"oci:{tmp_path}/layout:v1", str(made), PushOptions(image_prefix="/srv/env"), cache=cache)
    (found,) = [each for each in pushed.environment.findings if each.kind == "prefix"]
    assert "for another prefix (/srv/env)" in found.message


@pytest.mark.slow
def test_the_result_of_each_verb_shows_as_one_short_line(tmp_path: Path) -> None:
    files = {f"share/{number}": str(number) for number in range(3000)}
    env = environment(tmp_path / "env", package(tmp_path / "env", "many", files))
    cache = LayerCache(str(tmp_path / "cache"))
    pushed = push(f"oci:{tmp_path}/layout:v1", env, cache=cache)
    assert isinstance(pushed, Pushed)
    difference = diff(f"oci:{tmp_path}/layout:v1", env, platform=env.platform)
    for value in (pushed, pushed.plan, env, env.packages[0], difference):
        assert len(repr(value)) < 400
        assert "\n" not in repr(value)
    assert repr(env.packages[0]) == "<Package many 1.0 (pypi): 3,000 files, 11 kB>"
    assert repr(pushed.plan) == f"<PushPlan oci:{tmp_path}/layout:v1: 1 layer to build, 0 to upload, 0 to reuse>"
    assert "1 package; 1 layer built, 1 uploaded, 0 reused" in repr(pushed)
    assert repr(difference) == "<Difference: 0 added, 0 removed, 0 changed, 1 the same; 0 B to move>"
    assert isinstance(env, Environment)
