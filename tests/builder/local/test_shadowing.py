"""Local code with the name of an installed module: Python on a node imports one, with a finding for the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.scanned import SITE, findings, package, paths, shipped

if TYPE_CHECKING:
    from pathlib import Path

JOINS = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed_modules")
    files = {
        "conf/__init__.py": "",
        "single.py": "",
        "acme/installed/__init__.py": "",
        "acme/deep/there.py": "",
        "joined/__init__.py": JOINS,
        "joined/installed.py": "",
    }
    return install(venv(folder / "env"), wheel(folder, "installed", "1.0", files))


def shown(made: Path, root: Path, *names: str, text: str = "") -> tuple[set[str], list[str]]:
    """Shipped files of local code, and messages about the others."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    scanned = scan(str(made), ScanOptions(local=str(root)))
    found = [paths(each) for each in scanned.packages if each.origin == "local"]
    return {path.removeprefix(f"{SITE}/") for path in set().union(*found)}, [
        finding.message for finding in findings(scanned, "shadowed")
    ]


@pytest.mark.slow
def test_the_local_part_of_a_namespace_joins_the_installed_part(made: Path, tmp_path: Path) -> None:
    names = {"acme/localpart/__init__.py", "acme/deep/here.py", "acme/deep/data.csv"}
    assert shown(made, tmp_path / "app", *names) == (names, [])


@pytest.mark.slow
def test_so_does_one_whose_packages_say_that_they_have_other_parts(made: Path, tmp_path: Path) -> None:
    shipped_names, said = shown(made, tmp_path / "app", "joined/__init__.py", "joined/local.py", text=JOINS)
    assert (shipped_names, said) == ({"joined/local.py"}, [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("conf.py", "conf.py: left out for the installed conf; rename it in {root}"),
        ("conf/__init__.py", "conf: left out for the installed conf; rename it in {root}"),
        ("single/__init__.py", "single: left out for the installed single.py; rename it in {root}"),
        (
            "single.cpython-311-x86_64-linux-gnu.so",
            "linux-gnu.so: left out for the installed single.py; rename it in {root}",
        ),
        ("acme/installed/__init__.py", "acme/installed: left out for the installed installed; rename it in {root}"),
        ("acme/deep/there.py", "acme/deep/there.py: left out for the installed there.py; rename it in {root}"),
    ],
)
@pytest.mark.slow
def test_a_module_with_an_installed_modules_name_does_not_ship_and_is_a_finding(
    made: Path, tmp_path: Path, name: str, said: str
) -> None:
    root = tmp_path / "app"
    names, (message,) = shown(made, root, name, "other.py")
    assert names == {"other.py"}
    assert said.format(root=root) in message


@pytest.mark.slow
def test_data_and_folders_of_an_installed_packages_name_ship(made: Path, tmp_path: Path) -> None:
    names = {"app.py", "conf.yaml", "conf/settings.yaml", "single.txt", "single/table.csv"}
    assert shown(made, tmp_path / "app", *names) == (names, [])


def test_a_module_with_the_name_of_pythons_own_ships_and_is_a_finding(made: Path, tmp_path: Path) -> None:
    root = tmp_path / "app"
    names, messages = shown(made, root, "random.py", "email/__init__.py", "app.py")
    assert names == {"random.py", "email/__init__.py", "app.py"}
    assert sorted(messages) == [
        f"{name}: nodes import Python's own module of this name instead; rename it in {root}"
        for name in ("email", "random.py")
    ]


def test_an_installed_package_stays_whole(made: Path, tmp_path: Path) -> None:
    (tmp_path / "app" / "conf").mkdir(parents=True)
    (tmp_path / "app" / "conf" / "__init__.py").write_text("mine = 1\n")
    scanned = scan(str(made), ScanOptions(local=str(tmp_path / "app")))
    assert f"{SITE}/conf/__init__.py" in paths(package(scanned, "installed"))
    assert f"{SITE}/conf/__init__.py" in shipped(scanned)
