"""Which files made a layer change, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import BuilderError
from lamella.builder.layer.cache import LayerCache
from lamella.builder.pushing.difference import diff
from lamella.builder.pushing.file_changes import ListedFile, Listing, changes, file_changes
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.push import push
from lamella.layers.store.store import Store
from support.packages import environment, package

if TYPE_CHECKING:
    from pathlib import Path

SITE = "lib/python3.11/site-packages"


def listed(path: str, digest: str = "1", *, executable: bool = False, neutral: str = "") -> ListedFile:
    return ListedFile(path, 10, executable, None, digest, neutral)


def reasons(before: Listing, after: Listing) -> dict[str, tuple[str, str]]:
    return {each.path: (each.change, each.reason) for each in changes(before, after)}


def test_content_mode_and_link_are_told_apart() -> None:
    before = Listing((listed("a"), listed("b"), listed("gone"), ListedFile("l", 0, False, "a", "")))
    after = Listing((listed("a", "2"), listed("b", executable=True), listed("new"), ListedFile("l", 0, False, "b", "")))
    assert reasons(before, after) == {
        "a": ("changed", "content"),
        "b": ("changed", "mode"),
        "gone": ("removed", "content"),
        "l": ("changed", "link"),
        "new": ("added", "content"),
    }


def test_equal_listings_have_no_change() -> None:
    side = Listing((listed("a"), listed("lib/__pycache__/a.cpython-311.pyc")), "a70d0d0a", "/opt/env")
    assert changes(side, side) == ()


def test_another_python_moves_files_and_compiles_them_again() -> None:
    before = Listing((listed(f"{SITE}/a.py"), listed(f"{SITE}/__pycache__/a.cpython-311.pyc")), "a70d0d0a")
    site = SITE.replace("3.11", "3.12")
    after = Listing((listed(f"{site}/a.py"), listed(f"{site}/__pycache__/a.cpython-312.pyc", "2")), "cb0d0d0a")
    assert reasons(before, after) == {
        f"{site}/a.py": ("changed", "Python version"),
        f"{site}/__pycache__/a.cpython-312.pyc": ("changed", "Python version"),
    }


def test_another_image_prefix_is_not_other_content() -> None:
    pyc = f"{SITE}/__pycache__/a.cpython-311.pyc"
    before = Listing((listed("bin/x", "1", neutral="n"), listed(pyc)), "a70d0d0a", "/opt/env")
    after = Listing((listed("bin/x", "2", neutral="n"), listed(pyc, "2")), "a70d0d0a", "/srv/env")
    assert reasons(before, after) == {"bin/x": ("changed", "prefix"), pyc: ("changed", "prefix")}


def test_records_and_byte_code_follow_their_files() -> None:
    pyc, record = f"{SITE}/__pycache__/a.cpython-311.pyc", f"{SITE}/a-1.dist-info/RECORD"
    before = Listing((listed(pyc), listed(record), listed("conda-meta/a.json")), "a70d0d0a")
    after = Listing((listed(pyc, "2"), listed(record, "2"), listed("conda-meta/a.json", "2")), "a70d0d0a")
    assert {reason for _, reason in reasons(before, after).values()} == {"byte code", "record"}
    assert reasons(before, after)[pyc] == ("changed", "byte code")


def test_byte_code_to_come_is_compared_by_its_python_alone() -> None:
    pyc = f"{SITE}/__pycache__/a.cpython-311.pyc"
    before = Listing((listed(pyc),), "a70d0d0a")
    assert changes(before, Listing((listed(pyc, ""),), "a70d0d0a")) == ()
    assert reasons(before, Listing((listed(pyc, ""),), "a80d0d0a")) == {pyc: ("changed", "Python version")}


@pytest.mark.slow
def test_published_and_scanned_sides_name_the_same_change(tmp_path: Path) -> None:
    cache, store = LayerCache(str(tmp_path / "cache")), Store(str(tmp_path / "store"))
    pushed = {}
    environments = {}
    for version, content in (("1", "one\n"), ("2", "two\n")):
        root = tmp_path / f"env{version}"
        environments[version] = environment(
            root,
            package(root, "p", {"share/p/data": content, "share/p/same": "x"}),
            package(root, "q", {"share/q": "q"}),
        )
        pushed[version] = push(f"oci:{tmp_path}/layout:{version}", environments[version], cache=cache).reference
    platform = environments["1"].platform
    for after in (pushed["2"], environments["2"]):
        difference = diff(pushed["1"], after, platform=platform)
        (found,) = file_changes(difference, store=store)
        assert (found.name, found.reasons) == ("p", {"content": 1})
        (file,) = found.files
        assert (file.path, file.change, file.before, file.after) == ("share/p/data", "changed", 4, 4)
        with pytest.raises(BuilderError, match="--files q: the same on both sides, or in neither"):
            file_changes(difference, "q", store=store)


def test_an_added_package_is_listed_if_it_is_named(tmp_path: Path) -> None:
    root = tmp_path / "env"
    one, two = package(root, "p", {"share/p": "p"}), package(root, "q", {"share/q": "q"})
    difference = diff(environment(root, one), environment(root, one, two))
    assert file_changes(difference) == ()
    (found,) = file_changes(difference, "q")
    assert [(file.path, file.change) for file in found.files] == [("share/q", "added")]


def test_a_layer_with_the_same_files_at_another_prefix_is_explained(tmp_path: Path) -> None:
    root = tmp_path / "env"
    env = environment(root, package(root, "p", {"share/p": "p"}))
    cache = LayerCache(str(tmp_path / "cache"))
    sides = [
        push(f"oci:{tmp_path}/layout:{number}", env, PushOptions(image_prefix=prefix), cache=cache).reference
        for number, prefix in enumerate(("/opt/env", "/srv/env"))
    ]
    difference = diff(sides[0], sides[1], platform=env.platform)
    (found,) = file_changes(difference, store=Store(str(tmp_path / "store")))
    assert (found.files, found.reasons) == ((), {"prefix": 0})
