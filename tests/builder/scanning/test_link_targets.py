"""Where a link may lead for its target to ship: a link is text that any package and any repository can hold."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.prefix.places import Place
from lamella.builder.prefix.walk import FoundFile
from lamella.builder.scanning.link_targets import LinkTargets
from lamella.builder.scanning.options import ScanOptions
from lamella.builder.scanning.scan import scan
from support.engines import missing
from support.installed import install, venv, wheel
from support.scanned import SITE, file, findings, reasons, shipped

if TYPE_CHECKING:
    from pathlib import Path

OUT = "a link out of the environment"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("targets") / "env")


@pytest.fixture
def site(made: Path) -> Path:
    """site-packages of an environment that is empty again for each test."""
    for path in sorted((made / SITE).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    return made / SITE


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    (home / "documents").mkdir(parents=True)
    (home / ".bash_history").write_text("mysql -pCANARY\n")
    (home / "documents" / "salaries.csv").write_text("CANARY\n")
    (home / "key.txt").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nCANARY\n")
    monkeypatch.setenv("HOME", str(home))
    return home


def lead_out(folder: Path, home: Path) -> None:
    """Put links into `folder` as a hostile repository has them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "__init__.py").touch()
    (folder / "notes.txt").symlink_to(home / ".bash_history")
    (folder / "again.txt").symlink_to("notes.txt")
    (folder / "more").symlink_to(home / "documents")
    (folder / "shadow.txt").symlink_to("/etc/shadow")
    (folder / "key.txt").symlink_to(home / "key.txt")


LINKS = ("notes.txt", "again.txt", "more", "shadow.txt", "key.txt")


def outside(made: Path, options: ScanOptions) -> tuple[set[str], dict[str, str]]:
    """Paths in `evil` that ship, and the findings about its links by path."""
    scanned = scan(str(made), options)
    start = f"{SITE}/evil/"
    assert not [
        each for each in scanned.packages for found in each.files if found.source.endswith(("shadow", "key.txt"))
    ]
    names = {path[len(start) :] for path in shipped(scanned) if path.startswith(start)}
    return names, {each.subject.removeprefix(start): each.message for each in findings(scanned, "links")}


@pytest.mark.slow
def test_installed_package_does_not_ship_what_its_links_lead_to(made: Path, site: Path, home: Path) -> None:
    lead_out(site / "evil", home)
    info = site / "evil-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (info / "direct_url.json").write_text(json.dumps({"url": "https://host/evil", "vcs_info": {"vcs": "git"}}))
    (info / "INSTALLER").symlink_to(home / ".bash_history")
    zeros = "sha256=" + "A" * 42 + "E"
    names = ("__init__.py", *LINKS, "more/salaries.csv")
    (info / "RECORD").write_text("".join(f"evil/{name},{zeros},1\n" for name in names))
    names_shipped, told = outside(made, ScanOptions(working_directory=False))
    assert names_shipped == {"__init__.py"}
    assert told["notes.txt"] == (
        f"{SITE}/evil/notes.txt: left out, {OUT}, whose bytes are not those that its record names: "
        f"{home}/.bash_history; reinstall its package"
    )
    assert {"notes.txt", "more/salaries.csv", "shadow.txt", "key.txt"} <= told.keys()
    assert f"{SITE}/evil-1.0.dist-info/INSTALLER" in told


@pytest.mark.parametrize("by", ["a .pth file", "a link", "the working directory"])
def test_cloned_repository_does_not_ship_what_its_links_lead_to(
    made: Path, site: Path, home: Path, tmp_path: Path, by: str
) -> None:
    clone = tmp_path / "clone"
    (clone / ".git").mkdir(parents=True)
    (clone / "pyproject.toml").write_text('[project]\nname = "evil"\n')
    lead_out(clone / "evil", home)
    options = ScanOptions(working_directory=False)
    if by == "a .pth file":
        (site / "evil.pth").write_text(f"{clone}\n")
    elif by == "a link":
        (site / "evil").symlink_to(clone / "evil")
    else:
        options = ScanOptions(local=str(clone))
    names, told = outside(made, options)
    assert names == {"__init__.py"}
    assert told["notes.txt"] == (
        f"{SITE}/evil/notes.txt: left out, {OUT}: {home}/.bash_history; copy the file there, or ship it with --include"
    )
    assert {"notes.txt", "more", "shadow.txt", "key.txt"} <= told.keys()


def test_link_in_site_packages_to_a_folder_without_code_does_not_ship(made: Path, site: Path, home: Path) -> None:
    (site / "evil").symlink_to(home / "documents")
    scanned = scan(str(made), ScanOptions(working_directory=False))
    assert reasons(scanned)[f"{SITE}/evil"] == OUT
    assert not [path for path in shipped(scanned) if "salaries" in path]


def test_link_to_data_elsewhere_in_the_project_ships_it(made: Path, site: Path, home: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    (root / "shared" / "data").mkdir(parents=True)
    (root / "shared" / "data" / "table.csv").write_text("1,2\n")
    (root / "src" / "app").mkdir(parents=True)
    (root / "src" / "app" / "__init__.py").touch()
    (root / "pyproject.toml").touch()
    (root / "src" / "app" / "data").symlink_to("../../shared/data")
    (root / "src" / "app" / "table.csv").symlink_to(root / "shared" / "data" / "table.csv")
    (site / "app.pth").write_text(f"{root}/src\n")
    scanned = scan(str(made), ScanOptions(working_directory=False))
    for name in ("data/table.csv", "table.csv"):
        assert file(scanned, f"{SITE}/app/{name}").source == str(root / "shared" / "data" / "table.csv")


def test_included_file_is_what_links_to_it_lead_to(made: Path, site: Path, home: Path, tmp_path: Path) -> None:
    table = home / "documents" / "salaries.csv"
    work = tmp_path / "work"
    work.mkdir()
    (work / "app.py").touch()
    (work / "pyproject.toml").touch()
    (work / "table.csv").symlink_to(table)
    scanned = scan(str(made), ScanOptions(local=str(work), include=(str(table),)))
    assert file(scanned, f"{SITE}/salaries.csv").source == str(table)
    assert file(scanned, f"{SITE}/table.csv").target == "salaries.csv"


def test_single_module_that_an_installer_links_to_ships(made: Path, site: Path, tmp_path: Path) -> None:
    root = tmp_path / "project"
    root.mkdir()
    (root / "pyproject.toml").touch()
    (root / "single.py").touch()
    (site / "single.py").symlink_to(root / "single.py")
    scanned = scan(str(made), ScanOptions(working_directory=False))
    assert file(scanned, f"{SITE}/single.py").source == str(root / "single.py")


@pytest.mark.slow
def test_links_of_an_installer_into_its_cache_ship_the_bytes_that_it_recorded(tmp_path: Path) -> None:
    environment = venv(tmp_path / "env", by="uv")
    alpha = wheel(tmp_path, "alpha", "1.0", {"alpha/__init__.py": "", "alpha/data.txt": "as recorded"})
    install(environment, alpha, by="uv", options=["--link-mode", "symlink", "--cache-dir", str(tmp_path / "cache")])
    data = environment / SITE / "alpha" / "data.txt"
    scanned = scan(str(environment), ScanOptions(working_directory=False))
    assert not findings(scanned, "links")
    info = {f"{SITE}/alpha-1.0.dist-info/{name}" for name in ("METADATA", "RECORD", "INSTALLER")}
    assert info | {f"{SITE}/alpha/data.txt"} <= shipped(scanned)
    data.resolve().write_text("something else")
    scanned = scan(str(environment), ScanOptions(working_directory=False))
    (found,) = findings(scanned, "links")
    assert found.subject == f"{SITE}/alpha/data.txt"
    assert f"{SITE}/alpha/data.txt" not in shipped(scanned)


@pytest.mark.parametrize("mode", [0o644, 0o600])
def test_compiled_library_that_every_user_may_read_ships(tmp_path: Path, mode: int) -> None:
    library = tmp_path / "view" / "libm.so.6"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF")
    library.chmod(mode)
    link = FoundFile("lib/libm.so", str(tmp_path / "env" / "lib" / "libm.so"), library.stat(), str(library))
    targets = LinkTargets((Place(str(tmp_path / "env"), ""),), (), ())
    assert targets.judge(link, str(library)) == ("own" if mode & 0o4 else "foreign")


@pytest.mark.parametrize("path", ["/usr/lib/os-release", "/etc/ssl/certs/ca-certificates.crt"])
def test_software_of_the_system_ships(tmp_path: Path, path: str) -> None:
    if not os.path.exists(path):
        missing(f"{path}: not on this system")
    link = FoundFile("x", str(tmp_path / "env" / "x"), os.stat(path), path)
    assert LinkTargets((Place(str(tmp_path / "env"), ""),), (), ()).judge(link, os.path.realpath(path)) == "own"


@pytest.mark.slow
def test_links_of_the_system_s_python_are_the_environment_s_own() -> None:
    if not os.path.exists("/usr/bin/python3"):
        missing("/usr/bin/python3 is not here: apt-get install python3")
    scanned = scan("/usr", ScanOptions(working_directory=False))
    assert not findings(scanned, "links")
    copied = [each for package in scanned.packages for each in package.files if each.source.startswith("/etc/python3")]
    assert bool(copied) == os.path.islink(f"/usr/{scanned.interpreter.stdlib}/sitecustomize.py")
