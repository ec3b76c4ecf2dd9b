"""Local code on the command line: ships by default with a remark; a flag, variable or key turns it off."""

from __future__ import annotations

import gc
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from lamella.builder.pushing.push import push
from lamella.builder.scanning.options import ScanOptions
from lamella.cli.main import main
from support.installed import install, venv, wheel
from support.policies import user_file
from support.projects import project

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    return install(venv(folder / "env", by="uv"), wheel(folder, "alpha", "1.0", {"alpha.py": ""}), by="uv")


@pytest.fixture(autouse=True)
def cache(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(shared / "cache"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project as working directory."""
    root = tmp_path / "mine"
    (root / "templates").mkdir(parents=True)
    (root / "app.py").write_text("X = 1\n")
    (root / "templates" / "page.html").write_text("<p>")
    (root / "pyproject.toml").write_text("[project]\nname = 'mine'\nversion = '3'\n")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def lamella(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a verb, and return its stdout and stderr."""

    def run(*arguments: object) -> tuple[str, str]:
        capsys.readouterr()
        assert main([str(each) for each in arguments]) == 0
        printed = capsys.readouterr()
        return printed.out, printed.err

    return run


def local(out: str) -> list[tuple[str, str]]:
    return [(each["name"], each["version"]) for each in json.loads(out)["packages"] if each["origin"] == "local"]


def test_the_working_directorys_code_ships_with_a_remark(prefix: Path, here: Path, lamella: Any) -> None:
    out, err = lamella("scan", prefix, "--json")
    assert local(out) == [("mine", "3")]
    line = f"local code of {here}: 3 files, 47 B; --no-local leaves it out\n"
    assert err == line
    out, err = lamella("push", f"oci:{here.parent}/layout:v1", prefix)
    assert err.startswith(line)
    assert lamella("scan", prefix, "--json", "--quiet")[1] == ""


def test_cycles_are_collected_again_after_a_scan_and_after_a_failed_one(prefix: Path, here: Path, lamella: Any) -> None:
    lamella("scan", prefix)
    assert gc.isenabled()
    assert main(["scan", str(here / "absent")]) != 0
    assert gc.isenabled()


@pytest.mark.parametrize("way", ["flag", "variable", "file"])
def test_a_flag_a_variable_or_the_user_s_file_turns_local_code_off(
    prefix: Path, here: Path, lamella: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "variable":
        monkeypatch.setenv("LAMELLA_LOCAL", "")
    elif way == "file":
        user_file(here.parent, monkeypatch, local="")
    out, err = lamella("scan", prefix, "--json", *(["--no-local"] if way == "flag" else []))
    assert (local(out), err) == ([], "")


def test_local_ships_another_folder(
    prefix: Path, here: Path, lamella: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "other.py").write_text("")
    out, err = lamella("scan", prefix, "--json", "--local", "../other")
    assert local(out) == [("other", "")]
    assert err == f"local code of {tmp_path}/other: 1 file, 0 B; --no-local leaves it out\n"
    user_file(tmp_path, monkeypatch, local=f"{tmp_path}/other")
    assert local(lamella("scan", prefix, "--json")[0]) == [("other", "")]


def test_a_project_includes_its_files_and_ignores_packages(
    prefix: Path, here: Path, lamella: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "data").mkdir()
    (here / "data" / "table.csv").write_text("1")
    (here / ".lamellaignore").write_text("data\n")

    def packages(*flags: str) -> dict[str, int]:
        out = lamella("scan", prefix, "--json", *flags)[0]
        return {each["name"]: each["files"] for each in json.loads(out)["packages"]}

    everything = packages()
    (here / "pyproject.toml").write_text("[tool.lamella]\ninclude = ['data']\nignore = ['alpha']\n")
    assert everything["mine"] < packages()["mine"]
    assert "alpha" in everything
    assert "alpha" not in packages()
    assert "alpha" in packages("--ignore", "other")
    monkeypatch.setenv("LAMELLA_IGNORE", "beta:gamma")
    assert "alpha" in packages()
    monkeypatch.delenv("LAMELLA_IGNORE")
    layout = f"oci:{here.parent}/layout:v1"
    lamella("push", layout, prefix)
    pushed = json.loads(lamella("inspect", layout, "--json")[0])["platforms"][0]["packages"]
    assert {each["name"] for each in pushed} == packages().keys()
    assert json.loads(lamella("diff", layout, prefix, "--json")[0])["bytes"] == 0
    # Below the project's folder its settings apply, and its paths are those of its folder.
    (here / "templates" / "part.py").write_text("")
    monkeypatch.chdir(here / "templates")
    out = lamella("scan", prefix, "--json")[0]
    assert "alpha" not in {each["name"] for each in json.loads(out)["packages"]}


def test_included_files_alone_are_remarked_on(prefix: Path, here: Path, lamella: Any) -> None:
    _, err = lamella("scan", prefix, "--json", "--no-local", "--include", "templates")
    assert err == f"local code of {here}: 1 file, 3 B\n"


def test_a_home_folder_ships_nothing_and_a_finding_has_the_reason(
    prefix: Path, here: Path, lamella: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(here))
    out, err = lamella("scan", prefix, "--json")
    (found,) = [each for each in json.loads(out)["findings"] if each["kind"] == "local"]
    assert (found["severity"], err) == ("note", "")
    assert f"{here}: code left out, more than a project;" in found["message"]


def test_diff_includes_local_code_as_push_does(prefix: Path, here: Path, lamella: Any) -> None:
    place = f"oci:{here.parent}/layout:v1"
    lamella("push", place, prefix)
    assert json.loads(lamella("diff", place, prefix, "--json")[0])["bytes"] == 0
    removed = json.loads(lamella("diff", place, prefix, "--no-local", "--json")[0])["removed"]
    assert [each["name"] for each in removed] == ["mine"]


def test_wheels_are_the_same_from_the_library_and_the_command_line(
    prefix: Path, tmp_path: Path, lamella: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": "print('as built')\n"})
    monkeypatch.chdir(root)
    out, err = lamella("push", f"oci:{tmp_path}/layout:v1", prefix, "--wheels")
    assert err.startswith(f"local code of {root}: ")
    assert err.splitlines()[0].endswith(", with its metadata")
    pushed = push(f"oci:{tmp_path}/layout:v1", str(prefix), scan_options=ScanOptions(local=str(root), wheels=True))
    assert (pushed.reference, pushed.plan.unchanged) == (out.strip(), True)


def test_the_cache_flag_overrides_the_variable_for_hashes_and_wheels(
    prefix: Path, tmp_path: Path, lamella: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path / "demo", "demo", {"demo.py": ""})
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "other"))
    lamella("scan", prefix, "--wheels", "--local", root, "--cache", tmp_path / "cache")
    assert {"hashes.sqlite", "wheels"} <= set(os.listdir(tmp_path / "cache"))
    assert not (tmp_path / "other").exists()
    assert os.environ["LAMELLA_CACHE"] == str(tmp_path / "other")
