"""Folders whose code ships: the one that the user named, a project's working directory, PYTHONPATH's."""

from __future__ import annotations

import json
import tempfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CannotBuild
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE, findings, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("roots") / "env")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    root = tmp_path / "work"
    root.mkdir()
    monkeypatch.chdir(root)
    return root


def write(root: Path, *names: str, text: str = "") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def here(prefix: Path) -> Environment:
    return scan(str(prefix), ScanOptions(working_directory=True))


def local(scanned: Environment) -> set[str]:
    """Where the files of local packages are in site-packages, without their metadata."""
    found = {path for each in scanned.packages if each.origin == "local" for path in paths(each)}
    return {path.removeprefix(f"{SITE}/") for path in found if "dist-info" not in path}


@pytest.mark.parametrize("name", ["app.py", "native.so", "pkg/__init__.py", "a/b/c/mod.py", "space/mod.py"])
def test_a_working_directory_with_code_of_its_own_ships(made: Path, folder: Path, name: str) -> None:
    write(folder, name)
    scanned = here(made)
    assert local(scanned) == {name}
    assert package(scanned, "work", "local").source == f"file://{folder}"
    assert not findings(scanned, "local")


def test_a_folder_without_code_of_its_own_ships_nothing_without_a_finding(made: Path, folder: Path) -> None:
    write(folder, "README.md", "data.csv", "docs/conf.py", "node_modules/x/build.py", ".venv/pyvenv.cfg", "setup.py")
    write(folder, "clone/.git/HEAD", "clone/theirs.py", "ignored/x.py", "my-notes/x.py", "a/b/c/d/too_deep.py")
    (folder / ".gitignore").write_text("ignored\n")
    scanned = here(made)
    assert local(scanned) == set()
    assert not scanned.findings


def test_without_a_word_no_code_of_it_ships(made: Path, folder: Path) -> None:
    write(folder, "app.py")
    assert not local(scan(str(made)))


def test_a_repository_in_a_working_directory_ships_only_if_named(made: Path, folder: Path) -> None:
    write(folder, "app.py", "clone/.git/HEAD", "clone/theirs.py", "submodule/.git", "submodule/ours.py")
    scanned = here(made)
    assert local(scanned) == {"app.py", "submodule/ours.py"}
    assert reasons(scanned)[f"{folder}/clone"] == "a repository of its own"
    assert local(scan(str(made), ScanOptions(local="."))) == {"app.py", "submodule/ours.py", "clone/theirs.py"}


@pytest.mark.parametrize("broad", ["home", "above", "tmp", "prefix", "site-packages", "environment"])
@pytest.mark.slow
def test_a_folder_that_is_not_a_project_is_a_note_and_an_error_if_named(
    tmp_path: Path, broad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = venv(tmp_path / "env")
    where = {"prefix": prefix, "site-packages": prefix / SITE, "environment": tmp_path / "other"}.get(
        broad, tmp_path / "users"
    )
    write(where, "stray.py")
    write(tmp_path / "other", "pyvenv.cfg")
    if broad == "tmp":
        monkeypatch.setattr(tempfile, "tempdir", str(where))
    elif broad in {"home", "above"}:
        monkeypatch.setenv("HOME", str(where if broad == "home" else where / "ada"))
    monkeypatch.chdir(where)
    reason = {
        "prefix": f"part of the environment {prefix}",
        "site-packages": f"part of the environment {prefix}",
        "environment": "not a project",
    }.get(broad, "more than a project")
    scanned = here(prefix)
    assert local(scanned) == set()
    (found,) = findings(scanned, "local")
    assert (found.severity, found.message) == (
        "note",
        f"{where}: code left out, {reason}; name a project's folder with --local FOLDER",
    )
    with pytest.raises(CannotBuild) as failed:
        scan(str(prefix), ScanOptions(local="."))
    assert str(failed.value) == (
        f"--local {where}: {reason}; name a project's folder, or leave local code out with --no-local"
    )


@pytest.mark.parametrize("name", ["/", "/usr", "/opt", "/home"])
def test_folders_of_the_system_are_not_projects(made: Path, name: str) -> None:
    with pytest.raises(CannotBuild, match="more than a project"):
        scan(str(made), ScanOptions(local=name))


def test_a_home_without_modules_is_not_worth_a_note(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, "project/app.py", "notes.txt")
    monkeypatch.setenv("HOME", str(folder))
    assert not here(made).findings


def test_a_folder_that_is_not_there_is_one_sentence(made: Path, folder: Path) -> None:
    with pytest.raises(CannotBuild, match=r"^--local .*gone: not a directory; name a project's folder"):
        scan(str(made), ScanOptions(local="gone"))


def test_folders_of_pythonpath_ship_too(
    made: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, "app.py")
    write(tmp_path / "more", "extra.py")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'more'}:{tmp_path / 'nowhere'}:{made / SITE}")
    assert local(here(made)) == local(scan(str(made), ScanOptions(local="."))) == {"extra.py", "app.py"}
    assert not local(scan(str(made)))


def test_a_folder_of_pythonpath_ships_alone_where_the_working_directory_has_no_code(
    made: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "more", "extra.py")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    assert package(here(made), "more", "local").source == f"file://{tmp_path}/more"


@pytest.mark.slow
def test_an_editable_project_as_working_directory_ships_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = venv(tmp_path / "env")
    root = project(folder / "demo", "demo", {"demo.py": ""})
    write(root, "tests/test_demo.py", "train.py")
    editable(environment / SITE, root, "demo")
    for place in (root, root / "src", root / "src" / "demo"):
        monkeypatch.chdir(place)
        for scanned in (here(environment), scan(str(environment), ScanOptions(local="."))):
            assert local(scanned) == {"demo/__init__.py"}
            assert [each.kind for each in scanned.findings] == (["local"] if place == root else [])


@pytest.mark.slow
def test_code_beside_an_editable_project_ships_without_the_project(tmp_path: Path, folder: Path) -> None:
    environment = venv(tmp_path / "env")
    editable(environment / SITE, project(folder / "libs" / "demo", "demo", {"demo.py": ""}), "demo")
    write(folder, "app.py", "libs/notes.txt", "shared/common.py")
    (environment / SITE / "shared.pth").write_text(f"{folder}/shared\n")
    scanned = here(environment)
    assert local(scanned) == {"app.py", "libs/notes.txt", "demo/__init__.py", "common.py"}
    assert reasons(scanned)[f"{folder}/libs/demo"] == "part of an editable install"


@pytest.mark.slow
@pytest.mark.parametrize("known", ["by name", "by its folder"])
def test_an_installed_project_as_working_directory_does_not_ship_a_second_time(
    tmp_path: Path, folder: Path, known: str
) -> None:
    demo = wheel(tmp_path, "the-demo", "1.0", {"demo/__init__.py": ""})
    environment = install(venv(tmp_path / "env"), demo)
    write(folder, "src/demo/__init__.py")
    if known == "by name":
        (folder / "pyproject.toml").write_text("[project]\nname = 'The.Demo'\n")
    else:
        info = environment / SITE / "the_demo-1.0.dist-info"
        (info / "direct_url.json").write_text(json.dumps({"url": folder.as_uri(), "dir_info": {}}))
    name = "the-demo" if known == "by name" else "work"
    for scanned, severity in ((here(environment), "note"), (scan(str(environment), ScanOptions(local=".")), "warning")):
        assert local(scanned) == set()
        (found,) = findings(scanned, "local")
        assert found.severity == severity
        assert found.message == (
            f"{name}: ships as installed, not from this folder; install it with -e to ship the folder's code: {folder}"
        )
        assert f"{SITE}/demo/__init__.py" in shipped(scanned)
