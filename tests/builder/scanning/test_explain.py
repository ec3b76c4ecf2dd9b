"""Where a path ships, and why it does not."""

from __future__ import annotations

import os
import sysconfig
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.explain import Explanation, explain
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an editable install in its `.venv`, and files beside its code."""
    folder = tmp_path_factory.mktemp("explained")
    root = project(folder / "demo", "demo", {"demo.py": ""})
    made = install(
        venv(root / ".venv"), wheel(folder, "alpha", "1.0", {"alpha/__init__.py": "", "alpha/deep/mod.py": ""})
    )
    editable(made / SITE, root, "demo")
    for name in ("train.py", "conf/a.yaml", "data/x.csv", ".env", ".git/HEAD", "tests/test_a.py"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("x")
    (root / ".gitignore").write_text("data/\n.venv\n")
    (folder / "outside.txt").write_text("x")
    return root


@pytest.fixture(scope="module")
def scanned(root: Path) -> Environment:
    here = os.getcwd()
    os.chdir(root)
    try:
        return scan(str(root / ".venv"), ScanOptions(working_directory=True))
    finally:
        os.chdir(here)


@pytest.fixture(autouse=True)
def in_the_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)


def names(found: Explanation) -> set[str]:
    return {each.package.name for each in found.files}


@pytest.mark.parametrize(
    "path",
    [
        f"{SITE}/alpha/deep/mod.py",
        f".venv/{SITE}/alpha/deep/mod.py",
        f"/opt/env/{SITE}/alpha/deep/mod.py",
        "alpha.deep.mod",
    ],
)
def test_a_file_is_found_by_each_of_its_names(scanned: Environment, path: str) -> None:
    (found,) = explain(scanned, path).files
    assert (found.package.name, found.file.path, found.file.how) == ("alpha", f"{SITE}/alpha/deep/mod.py", "unchanged")


def test_a_file_is_found_by_its_absolute_path_through_a_link(scanned: Environment, root: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(root / ".venv")
    for prefix in (root / ".venv", tmp_path / "link"):
        assert names(explain(scanned, f"{prefix}/{SITE}/alpha/__init__.py")) == {"alpha"}


def test_a_project_s_file_is_found_where_it_is_on_this_disk(scanned: Environment, root: Path) -> None:
    (found,) = explain(scanned, "src/demo/__init__.py").files
    assert (found.package.name, found.package.origin) == ("demo", "local")
    assert found.file.path == f"{SITE}/demo/__init__.py"
    assert found.file.source == str(root / "src/demo/__init__.py")


def test_a_module_and_a_folder_name_every_file_of_theirs(scanned: Environment) -> None:
    for path in ("alpha", f"{SITE}/alpha"):
        paths = {each.file.path for each in explain(scanned, path).files}
        assert {f"{SITE}/alpha/__init__.py", f"{SITE}/alpha/deep/mod.py"} <= paths
    whole = explain(scanned, ".venv")
    assert {"alpha", "demo", "python"} <= names(whole)
    assert not [item for item in whole.left_out if "byte code" in item.reason]


def test_modules_of_the_standard_library_are_the_interpreter_s(scanned: Environment) -> None:
    assert names(explain(scanned, "json.decoder")) == {"python"}
    assert names(explain(scanned, "/opt/env/bin/python")) == {"python"}
    extension = next(iter(os.listdir(f"{sysconfig.get_path('stdlib')}/lib-dynload"))).partition(".")[0]
    assert names(explain(scanned, extension)) == {"python"}


def test_an_empty_folder_is_answered_with_how_to_ship_it(scanned: Environment, root: Path) -> None:
    (root / ".venv" / SITE / "alpha/spool").mkdir(exist_ok=True)
    found = explain(scanned, f"{SITE}/alpha/spool")
    assert found.reason == "an empty folder, which no layer holds; add a file to it, such as .keep"


def test_the_name_of_a_package_is_answered_with_the_command_that_lists_its_files(scanned: Environment) -> None:
    for path in ("Alpha", "ALPHA"):
        assert explain(scanned, path).reason == (
            "a package, not a file or module; list its files with lamella scan --files alpha"
        )


def test_generated_files_and_byte_code_are_named_as_such(scanned: Environment) -> None:
    (record,) = explain(scanned, f"{SITE}/alpha-1.0.dist-info/RECORD").files
    assert record.file.how == "generated"
    tag = scanned.interpreter.cache_tag
    (compiled,) = explain(scanned, f".venv/{SITE}/alpha/deep/__pycache__/mod.{tag}.pyc").files
    assert (compiled.package.name, compiled.file.how) == ("alpha", "compiled")


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (".venv/bin/activate", "activates the venv at its original place"),
        ("train.py", "beside the code of the installed project demo; ship it with --include"),
        ("conf/a.yaml", "beside the code of the installed project demo; ship it with --include"),
        ("data/x.csv", "data: ignored by .gitignore or .lamellaignore"),
        (".env", "never ships: a file for credentials"),
        (".git", "never ships: a version control system's folder"),
    ],
)
def test_the_reason_is_given_for_a_file_that_is_left_out(scanned: Environment, path: str, reason: str) -> None:
    found = explain(scanned, path)
    assert (found.files, found.reason) == ((), "")
    (left_out,) = found.left_out
    assert left_out.reason.endswith(reason)


def test_a_module_that_is_left_out_on_request_is_explained(root: Path) -> None:
    scanned = scan(str(root / ".venv"), ScanOptions(ignore=("alpha",)))
    found = explain(scanned, "alpha.deep.mod")
    assert [(item.path, item.reason) for item in found.left_out] == [
        (f"{SITE}/alpha/deep/mod.py", "part of alpha, left out on request")
    ]


def test_a_file_of_an_environment_in_a_project_is_explained_once(root: Path, tmp_path: Path) -> None:
    made = venv(tmp_path / "plain/.pixi/envs/default")
    (tmp_path / "plain/train.py").write_text("")
    scanned = scan(str(made), ScanOptions(local=str(tmp_path / "plain")))
    found = explain(scanned, str(made / "bin/activate"))
    assert [item.path for item in found.left_out] == ["bin/activate"]
    found = explain(scanned, str(made / "bin/python"))
    assert (found.files != (), found.left_out) == (True, ())
    assert [item.reason for item in explain(scanned, str(tmp_path / "plain/.pixi")).left_out] != []


def test_a_file_that_another_package_ships_is_not_left_out(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/train.py").write_text("")
    with zipfile.ZipFile(tmp_path / "plain/libs.zip", "w") as archive:
        archive.writestr("libs.py", "")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plain/libs.zip"))
    scanned = scan(str(root / ".venv"), ScanOptions(local=str(tmp_path / "plain")))
    found = explain(scanned, str(tmp_path / "plain/libs.zip"))
    assert (names(found), found.left_out) == ({"libs"}, ())


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("../outside.txt", "neither in the environment .*/.venv nor in local code$"),
        ("no.such.module", "no such file or folder, and no module of that name in .*/.venv"),
        ("no/such-file", "no such file or folder here, or in .*/.venv"),
    ],
)
def test_an_unknown_path_is_an_answer_of_its_own(scanned: Environment, path: str, reason: str) -> None:
    import re

    found = explain(scanned, path)
    assert (found.files, found.left_out) == ((), ())
    assert re.search(reason, found.reason)


def test_files_beside_an_installed_project_are_a_note_with_the_flags_that_ship_them(
    scanned: Environment, root: Path
) -> None:
    (note,) = [each for each in scanned.findings if each.kind == "local"]
    assert note.severity == "note"
    flags = "--include backend.py --include train.py --include conf"
    assert (
        note.message
        == f"{root}: backend.py, train.py, conf/ beside the installed project: left out; ship them with {flags}"
    )


def test_included_files_beside_an_installed_project_have_a_layer_of_their_own(root: Path) -> None:
    include = ("backend.py", "train.py", "conf")
    scanned = scan(str(root / ".venv"), ScanOptions(working_directory=True, include=include))
    assert [each for each in scanned.findings if each.kind == "local"] == []
    assert names(explain(scanned, "train.py")) == names(explain(scanned, "conf/a.yaml")) == {"demo-local"}
    assert names(explain(scanned, "src/demo/__init__.py")) == {"demo"}
    assert all(item.path for item in scanned.left_out)
