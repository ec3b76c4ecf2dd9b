"""Isolation of a venv from its user's packages, on this machine and on nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lamella.builder.scanning.scan import scan
from support.installed import base_python, venv
from support.scanned import SITE, file, findings, package, paths

SITE_OF_DEBIAN = SITE.replace("site-packages", "dist-packages")
"""Below `local/`: the folder of pip's installations with Debian's Python, outside venvs."""


def configuration(prefix: Path) -> str:
    """Text of the pyvenv.cfg that ships."""
    return Path(file(scan(str(prefix)), "pyvenv.cfg").source).read_text()


def sites(prefix: Path, home: Path) -> dict[str, object]:
    """What the Python at `prefix` answers about its prefixes and its folders of packages."""
    question = (
        "import json, site, sys, sysconfig; "
        "print(json.dumps([sys.prefix, sys.base_prefix, site.ENABLE_USER_SITE, sys.path, sysconfig.get_path('purelib')]))"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [prefix / "bin/python", "-c", question],
        env=clean | {"HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(zip(("prefix", "base_prefix", "user_site", "path", "purelib"), json.loads(done.stdout), strict=True))


def assembled(prefix: Path, target: Path) -> Path:
    """The scanned interpreter of `prefix` at `target`, as a node has it."""
    for each in package(scan(str(prefix)), "python").files:
        path = target / each.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if each.target is None:
            shutil.copy(each.source, path)
        else:
            path.symlink_to(each.target)
    (target / SITE).mkdir(parents=True)
    return target


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a package of its user."""
    folder = tmp_path / "home"
    (folder / ".local" / SITE).mkdir(parents=True)
    (folder / ".local" / SITE / "mine.py").write_text("")
    return folder


@pytest.mark.slow
def test_venv_stays_isolated_from_the_users_packages_on_a_node(tmp_path: Path, home: Path) -> None:
    node = assembled(venv(tmp_path / "env"), tmp_path / "node")
    said = sites(node, home)
    assert (said["prefix"], said["base_prefix"], said["user_site"]) == (str(node), str(node), False)
    assert os.path.realpath(str(said["purelib"])) in {str(node / SITE), str(node / "local" / SITE_OF_DEBIAN)}
    assert str(home) not in str(said["path"])


@pytest.mark.slow
def test_venv_with_system_packages_reads_the_users_after_its_own_on_a_node(tmp_path: Path, home: Path) -> None:
    node = assembled(venv(tmp_path / "env", options=["--system-site-packages"]), tmp_path / "node")
    said = sites(node, home)
    assert said["user_site"] is True
    search = said["path"]
    assert isinstance(search, list)
    real = [os.path.realpath(each) for each in search]
    assert real.index(str(node / SITE)) < real.index(str(home / ".local" / SITE))


@pytest.mark.parametrize(("value", "ships"), [("false", "false"), ("no", "false"), ("true", "true"), (None, "true")])
@pytest.mark.slow
def test_isolation_follows_the_venvs_configuration(tmp_path: Path, value: str | None, ships: str) -> None:
    prefix = venv(tmp_path / "env")
    kept = [line for line in (prefix / "pyvenv.cfg").read_text().splitlines() if not line.startswith("include-")]
    said = [] if value is None else [f"include-system-site-packages = {value}"]
    (prefix / "pyvenv.cfg").write_text("\n".join([*kept, *said, ""]))
    assert configuration(prefix) == f"include-system-site-packages = {ships}\n"


@pytest.mark.slow
def test_isolated_environment_stays_isolated_when_it_is_scanned_from_an_export(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = assembled(venv(tmp_path / "env"), tmp_path / "node")
    monkeypatch.setenv("HOME", str(home))
    scanned = scan(str(node))
    assert "pyvenv.cfg" in paths(package(scanned, "python"))
    assert not findings(scanned, "outside")
    assert configuration(node) == "include-system-site-packages = false\n"


@pytest.mark.slow
def test_interpreters_own_prefix_ships_without_a_configuration(tmp_path: Path) -> None:
    node = assembled(venv(tmp_path / "env"), tmp_path / "node")
    (node / "pyvenv.cfg").unlink()
    assert "pyvenv.cfg" not in {path for each in scan(str(node)).packages for path in paths(each)}
    assert base_python() != str(node / "bin/python")


@pytest.mark.parametrize("receipt", ["uv-receipt.toml", "pipx_metadata.json"])
@pytest.mark.slow
def test_the_record_of_a_tool_installation_never_ships_nor_makes_a_finding(tmp_path: Path, receipt: str) -> None:
    """It names indexes with their passwords, and folders of this machine."""
    prefix = venv(tmp_path)
    (prefix / receipt).write_text('index = "https://me:CANARY@host/simple"\n')

    environment = scan(str(prefix))

    assert receipt not in {path for each in environment.packages for path in paths(each)}
    assert [finding for finding in environment.findings if receipt in finding.message] == []
