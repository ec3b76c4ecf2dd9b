"""Layers whose files would be in each other's way on a node are refused before anything is uploaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.environment import File, Package
from lamella.builder.errors import CannotBuild
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.collisions import check_collisions, collisions
from lamella.builder.pushing.push import push
from lamella.builder.scanning.scan import scan
from support.installed import install, venv, wheel
from support.scanned import SITE, findings

if TYPE_CHECKING:
    from pathlib import Path


def of(name: str, *files: File) -> Package:
    return Package("pypi", name, "1.0", files)


def regular(path: str, digest: str = "a") -> File:
    return File(path, f"/{path}", 0o644, 1, digest * 64)


def link(path: str, target: str) -> File:
    return File(path, f"/{path}", 0o777, 0, "", target)


@pytest.mark.parametrize("entry", [link("lib/x", "y"), regular("lib/x")])
def test_file_or_link_of_one_package_at_a_folder_of_another_is_a_collision(entry: File) -> None:
    found = collisions([of("one", regular("lib/x/deep/a.py")), of("two", entry)])
    assert [(each.path, each.owner, each.other, each.below) for each in found] == [
        ("lib/x", "two 1.0", "one 1.0", "lib/x/deep/a.py")
    ]


def test_two_contents_at_one_path_are_a_collision() -> None:
    (found,) = collisions([of("one", regular("a")), of("two", regular("a", "b"))])
    assert str(found) == "a: in one 1.0 and in two 1.0, with different content; uninstall one of the two"


def test_headers_of_a_venv_collide_at_the_path_where_they_ship() -> None:
    one, two = regular("include/site/python3.11/x.h"), regular("include/python3.11/x.h", "b")
    among_others = of("one", regular("bin/one"), regular("include/other.h"), one, regular("lib/one.py"))
    for first in (of("one", one), among_others):
        assert [each.path for each in collisions([first, of("two", two)])] == ["include/python3.11/x.h"]


def test_equal_content_at_one_path_and_common_folders_are_fine() -> None:
    assert not collisions([of("one", regular("a/b"), link("a/c", "b")), of("two", regular("a/b"), regular("a/d"))])


def test_many_collisions_are_counted() -> None:
    one, two = (of(name, *(regular(f"f{n}", name[0]) for n in range(9))) for name in ("one", "two"))
    with pytest.raises(CannotBuild, match=r"f0: in one 1\.0 and in two 1\.0, .* \(and 6 more paths like these\)"):
        check_collisions([one, two])


@pytest.mark.slow
def test_push_of_colliding_layers_names_both_packages_and_uploads_nothing(tmp_path: Path) -> None:
    """A header in the folder of a venv, and an older one in that of the interpreter, in which it ships."""
    environment = venv(tmp_path / "env")
    short = SITE.split("/")[1]
    for name, folder in (("one", f"include/site/{short}"), ("two", f"include/{short}")):
        install(environment, wheel(tmp_path, name, files={f"{{data}}/data/{folder}/api.h": f"// {name}\n"}))
    (found,) = findings(scan(str(environment)), "collision")
    assert found.severity == "error"
    with pytest.raises(CannotBuild, match=rf"include/{short}/api\.h: in one 1\.0 and in two 1\.0"):
        push(f"oci:{tmp_path / 'layout'}:v1", str(environment), cache=LayerCache(str(tmp_path / "cache")))
    assert not list((tmp_path / "layout").rglob("blobs/sha256/*"))
