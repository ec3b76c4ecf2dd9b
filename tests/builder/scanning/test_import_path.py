"""What Python finds through PYTHONPATH and easy-install.pth, beside modules: installed folders, zip files and eggs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import install, uv, venv, wheel
from support.scanned import SITE, findings, package, paths, shipped

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

PKG_INFO = "Metadata-Version: 1.2\nName: {}\nVersion: 2.0\n"
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return venv(tmp_path / "env")


def scanned(made: Path, folder: Path) -> Environment:
    folder.mkdir(exist_ok=True)
    return scan(str(made), ScanOptions(local=str(folder)))


def warnings(environment: Environment) -> list[str]:
    return [each.message for each in environment.findings if each.severity != "note"]


def targeted(tmp_path: Path, by: str, *wheels: Path) -> Path:
    """A folder with wheels, as `--target` leaves it."""
    folder = tmp_path / "target"
    command = (
        PIP
        if by == "pip"
        else [uv(), "pip", "install", "--quiet", "--offline", "--no-deps", "--python", sys.executable]
    )
    subprocess.run([*command, "--target", folder, *wheels], check=True)
    return folder


def egg(folder: Path, name: str, *, requires: str = "", zipped: bool = False) -> Path:
    """An egg with one module, as `setup.py install` makes it."""
    path = folder / f"{name}-2.0-py3.11.egg"
    files = {f"{name}.py": "", "EGG-INFO/PKG-INFO": PKG_INFO.format(name), "EGG-INFO/requires.txt": requires}
    files["EGG-INFO/entry_points.txt"] = f"[console_scripts]\n{name}-tool = {name}:main\n"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            for inside, text in files.items():
                archive.writestr(inside, text)
        return path
    for inside, text in files.items():
        (path / inside).parent.mkdir(parents=True, exist_ok=True)
        (path / inside).write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("by", ["pip", "uv"])
def test_target_folder_on_pythonpath_ships_its_packages_with_their_metadata_and_scripts(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    points = "[console_scripts]\nalpha = alpha:main\n"
    first = wheel(tmp_path, "alpha", files={"alpha.py": ""}, entry_points=points, requires=["beta"])
    folder = targeted(tmp_path, by, first, wheel(tmp_path, "beta", files={"beta.py": ""}))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    found = scanned(made, tmp_path / "empty")
    assert {f"{SITE}/alpha.py", f"{SITE}/alpha-1.0.dist-info/METADATA", "bin/alpha"} <= paths(package(found, "alpha"))
    assert f"{SITE}/bin/alpha" not in shipped(found)
    assert warnings(found) == []


@pytest.mark.slow
def test_a_file_in_a_target_folder_is_not_reported_as_a_link(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = targeted(tmp_path, "uv", wheel(tmp_path, "alpha", "1.0", {"alpha.py": ""}))
    (folder / "loose.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    found = [each for each in scanned(made, tmp_path / "empty").findings if "loose.py" in each.message]
    assert [each.kind for each in found] == ["unowned"]


@pytest.mark.slow
def test_another_version_in_the_environment_than_on_pythonpath_is_named(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(made, wheel(tmp_path, "alpha", "1.0", {"alpha.py": ""}))
    folder = targeted(tmp_path, "pip", wheel(tmp_path, "alpha", "2.0", {"alpha.py": ""}))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (message,) = warnings(scanned(made, tmp_path / "empty"))
    assert message.startswith(f"alpha: 1.0 ships from the environment, though Python imports 2.0 from {folder} here")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.slow
def test_egg_of_setup_py_install_is_a_package_that_meets_requirements(
    made: Path, tmp_path: Path, *, zipped: bool
) -> None:
    site = made / SITE
    path = egg(site, "alpha", zipped=zipped)
    egg(site, "beta", requires="alpha>=2\n\n[extra]\nmissing\n", zipped=zipped)
    (site / "easy-install.pth").write_text("".join(f"./{each.name}\n" for each in sorted(site.glob("*.egg"))))
    (made / "bin/alpha-tool").write_text(f"#!{made}/bin/python\n")
    found = scan(str(made))
    assert (package(found, "alpha").version, package(found, "alpha").origin) == ("2.0", "pypi")
    expected = {f"{SITE}/{path.name}"} if zipped else {f"{SITE}/{path.name}/alpha.py"}
    assert expected | {"bin/alpha-tool"} <= paths(package(found, "alpha"))
    assert warnings(found) == []


@pytest.mark.slow
def test_requirement_of_an_egg_that_is_not_installed_is_found(made: Path) -> None:
    egg(made / SITE, "alpha", requires="nowhere>1\n")
    (found,) = findings(scan(str(made)), "requires")
    assert found.message == "alpha 2.0 requires nowhere>1, which is not installed; install it"


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.slow
def test_zip_files_and_eggs_on_pythonpath_ship_and_are_found_on_a_node(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, zipped: bool
) -> None:
    with zipfile.ZipFile(tmp_path / "loose.zip", "w") as archive:
        archive.writestr("loose.py", "")
    path = egg(tmp_path, "alpha", zipped=zipped)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'loose.zip'}:{path}")
    found = scanned(made, tmp_path / "empty")
    assert paths(package(found, "loose")) == {f"{SITE}/loose.zip"}
    assert package(found, "alpha").version == "2.0"
    (pointer,) = package(found, "pythonpath").files
    assert pointer.path == f"{SITE}/lamella-pythonpath.pth"
    with open(pointer.source, encoding="utf-8") as file:
        assert file.read() == f"loose.zip\n{path.name}\n"
    assert warnings(found) == []


@pytest.mark.slow
def test_damaged_egg_ships_as_unowned_files(made: Path) -> None:
    (made / SITE / "broken-1.0-py3.11.egg").write_bytes(b"PK\x03\x04 not a zip file")
    assert f"{SITE}/broken-1.0-py3.11.egg" in paths(package(scan(str(made)), "unowned"))
