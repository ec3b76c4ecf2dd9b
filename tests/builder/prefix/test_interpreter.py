"""Environments over every kind of interpreter: built from source, standalone, the system's, and each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.scan import scan
from support.engines import missing
from support.installed import base_python, install, venv, wheel
from support.projects import editable, project
from support.scanned import SITE, file, package, paths, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

SHORT = sysconfig.get_python_version()
SYSTEM_PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter in a folder of its own, as uv keeps them: with a link for its minor version."""
    folder = tmp_path_factory.mktemp("standalone")
    root = folder / f"cpython-{SHORT}.1-linux"
    stdlib = sysconfig.get_path("stdlib")
    left_out = shutil.ignore_patterns("site-packages", "dist-packages", "test", "config-*", "__pycache__", "idlelib")
    shutil.copytree(stdlib, root / "lib" / f"python{SHORT}", ignore=left_out)
    for name in ("bin", "lib/tcl8.6", "share/terminfo/x", f"lib/python{SHORT}/site-packages", f"include/python{SHORT}"):
        (root / name).mkdir(parents=True)
    shutil.copy(base_python(), root / "bin" / f"python{SHORT}")
    (root / "bin" / "python3").symlink_to(f"python{SHORT}")
    (root / "bin" / "python").symlink_to(f"python{SHORT}")
    (root / "lib" / "tcl8.6" / "init.tcl").write_text("")
    (root / "share" / "terminfo" / "x" / "xterm").write_text("")
    (root / f"include/python{SHORT}" / "Python.h").write_text("")
    (root / "lib" / f"python{SHORT}" / "site-packages" / "README.txt").write_text("")
    (folder / f"cpython-{SHORT}-linux").symlink_to(root.name)
    return root


@pytest.mark.slow
def test_an_interpreter_s_own_prefix_is_an_environment(standalone: Path) -> None:
    scanned = scan(str(standalone))
    python = paths(package(scanned, "python"))
    assert {f"bin/python{SHORT}", "bin/python", f"lib/python{SHORT}/os.py", "lib/tcl8.6/init.tcl"} <= python
    assert paths(package(scanned, "unowned")) == {f"lib/python{SHORT}/site-packages/README.txt"}


@pytest.mark.slow
def test_a_scan_writes_no_byte_code_into_an_environment(standalone: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in standalone.rglob("*")}
    scan(str(standalone))
    assert {path: path.lstat().st_mtime_ns for path in standalone.rglob("*")} == before


@pytest.mark.slow
def test_a_venv_over_a_standalone_interpreter_knows_it_by_both_of_its_names(standalone: Path, tmp_path: Path) -> None:
    by_link = standalone.parent / f"cpython-{SHORT}-linux" / "bin" / f"python{SHORT}"
    scanned = scan(str(venv(tmp_path / "env", by="uv", python=str(by_link))))
    python = paths(package(scanned, "python"))
    assert {f"bin/python{SHORT}", "lib/tcl8.6/init.tcl", "share/terminfo/x/xterm"} <= python
    assert f"lib/python{SHORT}/site-packages/README.txt" not in shipped(scanned)
    assert os.fsencode(standalone) in scanned.prefixes


@pytest.mark.slow
def test_a_venv_of_copies_ships_the_base_interpreter(tmp_path: Path) -> None:
    scanned = scan(str(venv(tmp_path / "env", by="pip", python=base_python(), options=["--copies"])))
    assert file(scanned, f"bin/python{SHORT}").source == base_python()
    assert file(scanned, "bin/python3").target == f"python{SHORT}"


@pytest.mark.parametrize("mode", ["hardlink", "clone", "copy", "symlink"])
@pytest.mark.slow
def test_every_link_mode_of_uv_gives_the_same_files(tmp_path: Path, mode: str) -> None:
    one = wheel(tmp_path, "one", "1.0", {"one/__init__.py": "X = 1\n", "one/data.txt": "d"})
    options = ["--link-mode", mode, "--cache-dir", str(tmp_path / "cache")]
    environment = install(venv(tmp_path / "env", by="uv"), one, by="uv", options=options)
    scanned = scan(str(environment))
    found = file(scanned, f"{SITE}/one/__init__.py")
    assert (found.target, found.size, found.mode) == (None, 6, 0o644)
    assert not [finding for finding in scanned.findings if finding.kind in {"links", "patched", "missing"}]


@pytest.mark.slow
def test_a_folder_that_is_only_called_lib64_ships(tmp_path: Path) -> None:
    environment = venv(tmp_path / "env")
    (environment / "lib64").unlink(missing_ok=True)
    (environment / "lib64").mkdir()
    (environment / "lib64" / "own.txt").write_text("")
    assert "lib64/own.txt" in shipped(scan(str(environment)))


@pytest.fixture(scope="module")
def user_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own packages for the system's Python, one of which hides a package of the system."""
    if not os.path.exists(SYSTEM_PYTHON):
        missing(f"{SYSTEM_PYTHON} is not here: apt-get install python3")
    code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    short = subprocess.run([SYSTEM_PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    base = tmp_path_factory.mktemp("user")
    site = base / "lib" / f"python{short}" / "site-packages"
    (site / "mine-1.0.dist-info").mkdir(parents=True)
    (site / "mine-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (site / "mine-1.0.dist-info" / "RECORD").write_text("mine.py,,\n../../../bin/mine,,\n")
    (site / "mine.py").write_text("")
    (base / "bin").mkdir()
    (base / "bin" / "mine").write_text("#!/usr/bin/python3\n")
    return base


@pytest.mark.slow
def test_the_system_s_python_ships_its_packages_and_the_user_s(
    user_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(user_base))
    scanned = scan("/usr")
    site = scanned.interpreter.purelib
    assert paths(package(scanned, "mine")) >= {f"{site}/mine.py", "bin/mine"}
    assert file(scanned, "bin/mine").source == str(user_base / "bin" / "mine")
    assert b"/usr" not in scanned.prefixes
    assert not [path for path in shipped(scanned) if path.endswith("EXTERNALLY-MANAGED")]
    assert f"{scanned.interpreter.stdlib}/os.py" in paths(package(scanned, "python"))


@pytest.mark.slow
def test_a_venv_with_the_system_s_packages_ships_its_own_before_them(
    user_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(user_base))
    environment = venv(tmp_path / "env", python=SYSTEM_PYTHON, options=["--system-site-packages"])
    install(environment, wheel(tmp_path, "mine", "2.0", {"mine.py": "NEW = 1\n"}))
    scanned = scan(str(environment))
    assert package(scanned, "mine").version == "2.0"
    assert file(scanned, f"{scanned.interpreter.purelib}/mine.py").source.startswith(str(environment))
    assert any("imported before it" in reason for reason in reasons(scanned).values())


@pytest.mark.slow
def test_a_file_of_the_user_s_site_is_not_reported_as_a_link(
    user_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(user_base))
    (site,) = user_base.glob("lib/python3.*/site-packages")
    (site / "loose.py").write_text("")
    scanned = scan(str(venv(tmp_path / "env", python=SYSTEM_PYTHON, options=["--system-site-packages"])))
    loose = [each for each in scanned.findings if "loose.py" in each.message]
    assert [each.kind for each in loose] == ["unowned"]
    assert [each for each in scanned.findings if each.kind == "links"] == []


@pytest.mark.parametrize("system", ["the system's Python", "a venv with its packages"])
@pytest.mark.slow
def test_a_project_installed_for_the_user_in_place_ships_without_a_warning(
    user_base: Path, tmp_path: Path, system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site,) = user_base.glob("lib/python3.*/site-packages")
    base = tmp_path / "base"
    inner = base / site.relative_to(user_base)
    inner.mkdir(parents=True)
    editable(inner, project(tmp_path / "demo", "demo", {"demo.py": ""}), "demo")
    with (inner / "demo-1.0.dist-info/RECORD").open("a") as record:
        record.write("../../../bin/demo,,\n")
    (base / "bin").mkdir()
    (base / "bin/demo").write_text("#!/usr/bin/python3\n")
    monkeypatch.setenv("PYTHONUSERBASE", str(base))
    venvs = ["--system-site-packages"]
    prefix = "/usr" if "venv" not in system else venv(tmp_path / "env", python=SYSTEM_PYTHON, options=venvs)
    scanned = scan(str(prefix))
    purelib = scanned.interpreter.purelib
    assert {f"{purelib}/demo/__init__.py", "bin/demo"} <= paths(package(scanned, "demo"))
    assert [each.message for each in scanned.findings if each.kind in {"missing", "links"}] == []


@pytest.mark.slow
def test_without_system_site_packages_neither_the_system_s_nor_the_user_s_packages_ship(
    user_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(user_base))
    scanned = scan(str(venv(tmp_path / "env", python=SYSTEM_PYTHON)))
    assert {each.origin for each in scanned.packages} == {"python", "system"}


@pytest.mark.slow
def test_debian_s_site_module_finds_the_packages(tmp_path: Path) -> None:
    with open("/etc/os-release", encoding="utf-8") as about:
        if "debian" not in about.read():
            missing("the system's Python is not Debian's")
    scanned = scan(str(venv(tmp_path / "env", python=SYSTEM_PYTHON)))
    assert file(scanned, f"{scanned.interpreter.stdlib}/dist-packages").target == "site-packages"


def test_packages_shadowed_by_the_user_s_site_are_reported(
    standalone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for site in (standalone / SITE, tmp_path / SITE):
        (site / "both-1.0.dist-info").mkdir(parents=True)
        (site / "both-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: both\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    (found,) = [finding for finding in scan(str(standalone)).findings if finding.kind == "shadowed"]
    assert found.message == f"both: ships from the environment, though Python imports it from {tmp_path / SITE} here"


def test_packages_only_in_the_user_s_site_are_reported_and_do_not_ship(
    standalone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / SITE
    (site / "only_user-1.0.dist-info").mkdir(parents=True)
    (site / "only_user-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: only-user\nVersion: 1.0\n")
    (site / "only_user-1.0.dist-info" / "RECORD").write_text("onlyuser.py,,\n")
    for name in ("onlyuser.py", "loose.py"):
        (site / name).write_text("")
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path))
    assert [finding.message for finding in scan(str(standalone)).findings if finding.kind == "outside"] == [
        f"{name}: left out, since it is not in the environment; install it there; Python imports it from {site} here"
        for name in ("loose", "only-user")
    ]
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    assert not [finding for finding in scan(str(standalone)).findings if finding.kind == "outside"]
