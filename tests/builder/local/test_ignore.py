"""Ignore files, against git itself."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.builder.local.ignore import Ignore
from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    "a.py",
    "a.log",
    "deep/a.log",
    "deep/er/a.log",
    "build/x.py",
    "deep/build/x.py",
    "doc/frotz/x",
    "deep/doc/frotz/x",
    "foo/bar/baz",
    "foo/baz",
    "#hash",
    "!bang",
    "with space ",
    "x1",
    "xa",
    "[z-a]",
]


@pytest.mark.parametrize(
    "rules",
    [
        "*.log",
        "/*.log",
        "*.log\n!deep/er/a.log",
        "build/",
        "/build",
        "doc/frotz",
        "doc/frotz/",
        "**/frotz",
        "foo/**",
        "foo/**/baz",
        "deep/*/a.log",
        "\\#hash",
        "# hash\n\n",
        "\\!bang",
        "x[0-9]",
        "x[!0-9]",
        "x?",
        "with space\\ ",
        "[z-a]",
        "*\n!*.py",
        "deep\n!deep/a.log",
    ],
)
def test_a_rule_means_what_it_means_to_git(tmp_path: Path, rules: str) -> None:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / ".gitignore").write_text(rules + "\n")
    git = need("git")
    subprocess.run([git, "init", "--quiet", str(tmp_path)], check=True)
    asked = "\0".join(FILES).encode()
    command = [git, "-C", str(tmp_path), "check-ignore", "-z", "--stdin"]
    said = subprocess.run(command, input=asked, capture_output=True, check=False).stdout
    ignore = Ignore(str(tmp_path))
    assert {name for name in FILES if left_out(ignore, name)} == set(filter(None, said.decode().split("\0")))


def left_out(ignore: Ignore, name: str) -> bool:
    """As a walk asks: a folder that is ignored is not entered."""
    parts = name.split("/")
    return any(ignore.ignored("/".join(parts[:end]), folder=end < len(parts)) for end in range(1, len(parts) + 1))


def test_rules_of_the_repository_count_in_a_folder_of_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.log\n/app/data/\n/out\n")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / ".gitignore").write_text("!keep.log\n")
    ignore = Ignore(str(tmp_path / "app"), top=str(tmp_path))
    assert ignore.ignored("a.log", folder=False)
    assert ignore.ignored("data", folder=True)
    assert not ignore.ignored("keep.log", folder=False)
    assert not ignore.ignored("out", folder=False)
