"""A project that did not change is not built again; what a build would see decides."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError, CacheError
from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import venv
from support.projects import editable, project
from support.scanned import SITE, file, package, shipped

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose backend leaves a line for each build."""
    root = project(
        tmp_path / "demo", "demo", {"demo.py": ""}, first=f"open('{tmp_path}/builds', 'a').write('built\\n')"
    )
    (tmp_path / "outside.txt").write_text("")
    (root / "README.txt").symlink_to("../outside.txt")
    (root / ".git" / "objects").mkdir(parents=True)
    (root / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    return root


@pytest.fixture
def made(tmp_path: Path, root: Path) -> Path:
    environment = venv(tmp_path / "env")
    editable(environment / SITE, root, "demo")
    return environment


def built(prefix: Path) -> Environment:
    return scan(str(prefix), ScanOptions(wheels=True))


def builds(tmp_path: Path) -> int:
    return len((tmp_path / "builds").read_text().splitlines())


def test_a_second_scan_builds_nothing_and_ships_the_same_files(made: Path, tmp_path: Path) -> None:
    once = package(built(made), "demo")
    assert package(built(made), "demo") == once
    assert builds(tmp_path) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "src" / "demo" / "__init__.py").write_text("changed\n"),
        lambda root: (root / "src" / "demo" / "__init__.py").chmod(0o755),
        lambda root: (root / "src" / "demo" / "more.py").write_text(""),
        lambda root: (root / "pyproject.toml").write_text((root / "pyproject.toml").read_text() + "# another\n"),
        lambda root: (root / ".git" / "HEAD").write_text("0" * 40),
        lambda root: (root / ".git" / "packed-refs").write_text("a tag"),
    ],
    ids=["content", "mode", "file", "requirements", "commit", "tag"],
)
def test_a_change_that_a_build_sees_builds_anew(
    made: Path, root: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    built(made)
    change(root)
    built(made)
    assert builds(tmp_path) == 2


def test_change_of_a_file_elsewhere_in_the_repository_that_a_link_leads_to_builds_anew(
    made: Path, root: Path, tmp_path: Path
) -> None:
    (root / ".git").rename(tmp_path / ".git")
    built(made)
    (tmp_path / "outside.txt").write_text("changed")
    built(made)
    assert builds(tmp_path) == 2


@pytest.mark.parametrize("name", ["CFLAGS", "CMAKE_ARGS", "SETUPTOOLS_SCM_PRETEND_VERSION_FOR_DEMO"])
def test_a_variable_that_backends_heed_builds_anew(
    made: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(made)
    monkeypatch.setenv(name, "-O1")
    built(made)
    assert builds(tmp_path) == 2


def test_what_no_build_sees_builds_nothing(made: Path, root: Path, tmp_path: Path, cache: Path) -> None:
    (root / ".lamellaignore").write_text("notes\n")
    built(made)
    for name in ("build/lib/x.py", "src/demo/__pycache__/x.pyc", ".venv/pyvenv.cfg", ".git/objects/00", "notes/x.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    os.utime(root / "src" / "demo" / "__init__.py")
    built(made)
    assert builds(tmp_path) == 1


def test_another_environment_of_the_same_python_takes_the_wheel_and_has_its_own_prefix_in_its_scripts(
    tmp_path: Path,
) -> None:
    points = "[console_scripts]\ndemo = demo:main\n"
    say = f"open('{tmp_path}/builds', 'a').write('built\\n')"
    root = project(tmp_path / "demo", "demo", {"demo.py": ""}, entry_points=points, first=say)
    for name in ("one", "other"):
        environment = venv(tmp_path / name)
        editable(environment / SITE, root, "demo")
        with open(file(built(environment), "bin/demo").source, encoding="utf-8") as script:
            assert script.readline() == f"#!{environment}/bin/python\n"
    assert builds(tmp_path) == 1


def test_cache_inside_the_project_is_left_out_of_its_build(
    made: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(root / "cache"))
    built(made)
    built(made)
    assert builds(tmp_path) == 1


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(
    made: Path, root: Path, tmp_path: Path, cache: Path
) -> None:
    (root / "backend.py").write_text("raise RuntimeError('no')\n")
    for _ in range(2):
        with pytest.raises(BuilderError, match="RuntimeError: no"):
            built(made)
        assert os.listdir(cache / "wheels") == []


def test_wheels_that_no_scan_asked_for_in_a_month_are_dropped_by_the_next_build(
    made: Path, root: Path, tmp_path: Path, cache: Path
) -> None:
    built(made)
    (old,) = (cache / "wheels").iterdir()
    os.utime(old, (1, 1))
    built(made)
    assert old.stat().st_mtime > 1, "a scan that takes a wheel keeps it"
    os.utime(old, (1, 1))
    (root / "src" / "demo" / "more.py").write_text("")
    built(made)
    (new,) = (cache / "wheels").iterdir()
    assert new != old


def test_a_cache_that_can_t_be_written_is_one_sentence(
    made: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file")
    with pytest.raises(
        CacheError,
        match=r"cache: .* cannot be written: Not a directory; set LAMELLA_CACHE to a folder",
    ):
        built(made)


def test_push_takes_wheels_as_scan_does(made: Path, root: Path, tmp_path: Path) -> None:
    pushed = push(f"oci:{tmp_path}/layout:v1", str(made), scan_options=ScanOptions(wheels=True))
    assert f"{SITE}/demo.py" in shipped(pushed.environment)
    again = push(f"oci:{tmp_path}/layout:v1", str(made), scan_options=ScanOptions(wheels=True))
    assert (again.reference, again.plan.unchanged) == (pushed.reference, True)
    assert builds(tmp_path) == 1
