"""Environments with folders that are links: the same packages, at the same paths, as in any other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from lamella.builder.files.content_cache import ContentCache
from lamella.builder.layer.collisions import collisions
from lamella.builder.local.code_roots import LocalCode
from lamella.builder.prefix.interpreter import prefix_of
from lamella.builder.prefix.locate import locate
from lamella.builder.scanning.collect import collect
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.scanned import SITE, file, package, paths, shipped

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.environment import Environment

FILES = {"alpha/__init__.py": "A = 1\n", "alpha/data.txt": "x", "{data}/data/share/alpha.txt": "y"}


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A virtual environment with one package."""
    points = "[console_scripts]\nalpha = alpha:main\n"
    return install(venv(tmp_path / "env"), wheel(tmp_path, "alpha", files=FILES, entry_points=points))


def link(made: Path, path: str, target: str) -> None:
    """Move the folder `path` to `target` (relative to the prefix, or absolute), and leave a link to it."""
    there = made / target
    there.parent.mkdir(parents=True, exist_ok=True)
    (made / path).rename(there)
    (made / path).symlink_to(there)


def content(scanned: Environment, name: str) -> set[tuple[str, str, str | None]]:
    return {(each.path, each.digest, each.target) for each in package(scanned, name).files}


@pytest.mark.slow
@pytest.mark.parametrize(
    "links",
    [
        {"lib": "usr/lib"},
        {"lib": "lib64"},
        {"bin": "usr/bin", "lib": "usr/lib"},
        {"share": "data/share"},
        {SITE: "packages"},
        {SITE: "../elsewhere"},
        {"lib": "../far/lib"},
        {"lib": "usr/lib", SITE: "deep/packages"},
    ],
    ids=str,
)
def test_package_behind_linked_folders_is_the_same(made: Path, links: dict[str, str]) -> None:
    (made / "lib64").unlink(missing_ok=True)
    plain = scan(str(made))
    for path, target in links.items():
        link(made, path, target)
    linked = scan(str(made))
    assert content(linked, "alpha") == content(plain, "alpha")
    assert paths(package(linked, "python")) == paths(package(plain, "python"))
    assert [each for each in linked.findings if each.severity != "note"] == []
    assert collisions(linked.packages) == []


@pytest.mark.slow
def test_folder_behind_a_link_is_found_by_its_own_path_too(made: Path) -> None:
    link(made, "lib", "usr/lib")
    assert file(scan(str(made)), "usr/lib").target == "../lib"


@pytest.mark.slow
def test_recorded_path_through_a_link_belongs_to_its_package(made: Path) -> None:
    """Old releases of pip record lib64, and a package's folder can be a link."""
    record = made / SITE / "alpha-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text().replace("alpha/data.txt", f"../../../lib64/{SITE[4:]}/alpha/data.txt"))
    (made / "share" / "packages").mkdir(parents=True)
    (made / SITE / "alpha").rename(made / "share/packages/alpha")
    (made / SITE / "alpha").symlink_to("../../../share/packages/alpha")
    scanned = scan(str(made))
    assert {"share/packages/alpha/__init__.py", "share/packages/alpha/data.txt"} <= paths(package(scanned, "alpha"))
    assert [each for each in scanned.findings if each.kind in ("missing", "collision")] == []


@pytest.mark.slow
def test_link_to_a_file_in_a_linked_folder_leads_to_its_path(made: Path) -> None:
    link(made, "lib", "usr/lib")
    (made / "share" / "link.txt").symlink_to(made / "usr" / SITE / "alpha" / "data.txt")
    assert file(scan(str(made)), "share/link.txt").target == f"../{SITE}/alpha/data.txt"


@pytest.mark.slow
def test_python_with_its_library_in_lib64_finds_it_on_a_node(made: Path, tmp_path: Path) -> None:
    with_cache = ContentCache(str(tmp_path / "hashes.sqlite"))
    prefix = prefix_of(locate(str(made)), with_cache)
    fedoras = replace(prefix, python=replace(prefix.python, platlibdir="lib64"))
    gathered = collect(fedoras, LocalCode(), str(tmp_path / "cache"))
    assert gathered.entries["lib64"].target == "lib"
    assert "lib64" in gathered.python
    assert "lib64" not in shipped(scan(str(made)))
