"""Ignore files, against git itself. The table follows git's own t0008, t3001 and t3070."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.builder.local.ignore import Ignore
from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    "a",
    "b",
    "A",
    "ab",
    "a.py",
    "a.log",
    "1",
    "1a",
    "x1",
    "xa",
    "aa/b",
    "B/a",
    "build/x.py",
    "deep/a.log",
    "deep/er/a.log",
    "deep/build/x.py",
    "deep/doc/frotz/x",
    "doc/frotz/x",
    "foo/bar",
    "foo/baz",
    "foo/x/bar",
    "foo/x/y/bar",
    "foox/bar",
    "foox/y/bar",
    "c/b/a/b",
    ".c",
    ".d/.b",
    "#hash",
    "!bang",
    "with space ",
    " space",
    "tab\t",
    "back\\slash",
    "star*",
    "[z-a]",
    "[a]",
    "]",
    "-",
    "^",
    "é",
    "xé/a",
]
RULES = [
    # extensions, anchors, folders only
    "*.log",
    "/*.log",
    "*.log\n!deep/er/a.log",
    "build/",
    "/build",
    "build//",
    "//build",
    "/",
    "!",
    "a/",
    "doc/frotz",
    "doc/frotz/",
    "frotz/",
    "b/a",
    "/b/a",
    # asterisks
    "*",
    "**",
    "/**",
    "**/",
    "***",
    "**/frotz",
    "/**/frotz",
    "foo/**",
    "foo/**/bar",
    "foo/***/bar",
    "foo/**/**/bar",
    "foo/*",
    "foo/*/bar",
    "foo**/bar",
    "foo*/bar",
    "fo?**/bar",
    "foo/**bar",
    "foo/x**",
    "foo/**\\/bar",
    "f**r",
    "deep/*/a.log",
    "deep/**/a.log\n!deep/er/*",
    "x?",
    "?",
    "??",
    "a?b",
    "foo?bar",
    # negation, also below an excluded folder
    "*\n!*.py",
    "*\n!*/\n!*.py",
    "deep\n!deep/a.log",
    "deep/*\n!deep/a.log",
    "foo/**\n!foo/x/",
    "a*\n!ab\nab",
    # comments, blanks, escapes, white space
    "\\#hash",
    "#hash",
    "# hash\n\n",
    "\\!bang",
    "!!bang",
    "*\n!!bang",
    "*\n!\\!bang",
    "with space\\ ",
    "with space ",
    "with space\\  ",
    "a ",
    "a   ",
    " space",
    "tab\t",
    "a\t",
    "a\r",
    "a\r\nb\r",
    "   ",
    "back\\\\slash",
    "back\\slash",
    "a\\",
    "\\a",
    "star\\*",
    "\ufeffa",
    "a\n\ufeffb",
    # bracket expressions
    "x[0-9]",
    "x[!0-9]",
    "x[^0-9]",
    "[z-a]",
    "\\[z-a]",
    "[[]z-a]",
    "[[:digit:]]",
    "[[:digit:]]a",
    "x[[:digit:]]",
    "x[![:digit:]]",
    "[[:alpha:]]",
    "[[:upper:]]",
    "[[:lower:][:digit:]]",
    "[[:alnum:]_]b",
    "[[:punct:]]*",
    "[[:space:]]space",
    "tab[[:blank:]]",
    "[[:cntrl:]]",
    "[[:print:]]",
    "[[:graph:]][[:graph:]]",
    "[[:xdigit:]]",
    "[[:nonsense:]]",
    "[[:alpha]",
    "[[:alpha:]",
    "[:alpha:]",
    "[a",
    "[",
    "[]",
    "[]]",
    "[!]]",
    "[]-a]",
    "[a-]",
    "[--a]",
    "[^-a]",
    "[\\]]",
    "[\\^a]",
    "[a\\-z]",
    "[a-\\c]",
    "foo[/]bar",
    "foo[!x]bar",
    "[A-Z]",
    "[a-a]",
    # bytes
    "é",
    "[é]",
    "x?/",
    "x??/",
]
PIECES = [
    *"abcAx1?*/!#-^\\ \té",
    *("**", "**/", "/**", "/**/", "foo", "bar", ".log", "\\a", "\\*", "\\[", "\\\\", "\\ ", "\\/", ".d"),
    *("[ab]", "[!a]", "[^b]", "[a-c]", "[]]", "[!]]", "[]-a]", "[\\]]", "[a", "[b-a]", "[a/]", "[--a]", "[a-]"),
    *("[[:alpha:]]", "[[:digit:]]", "[![:lower:]]", "[[:x:]]", "[[:space:]", "[a[:digit:]-z]"),
]
LINES = st.builds(
    lambda keep, parts: keep + "".join(parts),
    st.sampled_from(["", "", "!"]),
    st.lists(st.sampled_from(PIECES), max_size=5),
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with an empty file for each of FILES."""
    root = tmp_path_factory.mktemp("repository")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    subprocess.run([need("git"), "init", "--quiet", str(root)], check=True)
    return root


@pytest.mark.parametrize("rules", RULES)
def test_rule_matches_what_git_ignores(repository: Path, rules: str) -> None:
    assert_as_git(repository, {".gitignore": rules + "\n"})


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=3))
@pytest.mark.slow
def test_any_rules_match_what_git_ignores(repository: Path, rules: list[str]) -> None:
    assert_as_git(repository, {".gitignore": "\n".join(rules)})


@settings(max_examples=50, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=2), st.lists(LINES, min_size=1, max_size=2))
@pytest.mark.slow
def test_rules_of_nested_ignore_files_match_what_git_ignores(
    repository: Path, outer: list[str], inner: list[str]
) -> None:
    assert_as_git(repository, {".gitignore": "\n".join(outer), "foo/.gitignore": "\n".join(inner)})


@pytest.mark.parametrize(
    ("outer", "inner"),
    [
        ("bar", "!bar"),
        ("foo/x", "!x"),
        ("!bar", "bar"),
        ("foo/bar\n!foo/baz", "/ba[rz]"),
        ("/x", "/x"),
        ("*", "!x/\n!x/**"),
    ],
)
def test_deeper_ignore_file_wins(repository: Path, outer: str, inner: str) -> None:
    assert_as_git(repository, {".gitignore": outer, "foo/.gitignore": inner})


def assert_as_git(root: Path, files: dict[str, str]) -> None:
    """Compares what `Ignore` leaves out of `root` with what git ignores there, with the ignore files `files`."""
    for name, content in files.items():
        (root / name).write_bytes(content.encode())
    try:
        ignore = Ignore(str(root))
        assert {name for name in FILES if left_out(ignore, name)} == ignored_by_git(root)
    finally:
        for name in files:
            (root / name).unlink()


def ignored_by_git(root: Path) -> set[str]:
    # The user's own ignore files must not count, and neither must the index.
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "XDG_CONFIG_HOME": "/nowhere",
    }
    command = [need("git"), "-C", str(root), "check-ignore", "--no-index", "-z", "--stdin"]
    asked = "\0".join(FILES).encode()
    done = subprocess.run(command, input=asked, capture_output=True, check=False, env=environment)
    assert not done.stderr
    return set(filter(None, done.stdout.decode().split("\0")))


def left_out(ignore: Ignore, name: str) -> bool:
    """Whether a walk leaves the file out: it does not enter an ignored folder."""
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


def test_lamellaignore_wins_over_gitignore_beside_it(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.csv\n")
    (tmp_path / ".lamellaignore").write_text("!keep.csv\n*.tmp\n")
    both, own = Ignore(str(tmp_path)), Ignore(str(tmp_path), (".lamellaignore",))
    assert [both.ignored(name, folder=False) for name in ("a.csv", "keep.csv", "a.tmp")] == [True, False, True]
    assert [own.ignored(name, folder=False) for name in ("a.csv", "keep.csv", "a.tmp")] == [False, False, True]


def test_name_that_is_not_unicode_is_matched_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_bytes(b"caf\xe9\n")
    assert Ignore(str(tmp_path)).ignored(os.fsdecode(b"caf\xe9"), folder=False)
