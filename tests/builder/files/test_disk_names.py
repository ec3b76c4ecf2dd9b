"""Names that a disk merges or changes are found before anything is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.builder.files.disk_names import indistinct, merges_names, unlisted
from support.other_systems import ignore_case

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (["a/b.py", "a/c.py", "b/a.py"], {}),
        (["a/B.py", "a/b.py"], {"a/b.py": "a/B.py"}),
        (["Foo/x.py", "foo/y.py", "foo/z/a.py"], {"foo/y.py": "Foo", "foo/z/a.py": "Foo"}),
        (["stra\u00dfe", "STRASSE"], {"STRASSE": "stra\u00dfe"}),
        (["u\u0308.py", "\u00fc.py"], {"\u00fc.py": "u\u0308.py"}),
    ],
)
def test_paths_that_differ_in_case_or_unicode_form_alone_are_found(paths: list[str], found: dict[str, str]) -> None:
    assert indistinct(paths) == found


def test_files_that_the_disk_lists_by_another_name_or_not_at_all_are_found(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c.py").touch()
    (tmp_path / "top").touch()
    assert unlisted(str(tmp_path), {"a/b/c.py", "top"}) == []
    assert unlisted(str(tmp_path), {"a/B/c.py", "a/b/c.py.", "top"}) == ["a/B/c.py", "a/b/c.py."]


def test_an_ordinary_disk_of_linux_merges_no_names(tmp_path: Path) -> None:
    assert not merges_names(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_ignores_case_merges_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").touch()
    with monkeypatch.context() as patched:
        ignore_case(patched)
        assert merges_names(str(tmp_path))
    assert unlisted(str(tmp_path), {"A.py", "a.py"}) == ["A.py"]
