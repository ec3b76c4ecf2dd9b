"""Locating the environment, and the errors without one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.prefix.locate import locate
from lamella.builder.prefix.places import made_at
from lamella.builder.scanning.scan import scan
from support.installed import venv
from support.people import NOBODY, as_user, folder_of

if TYPE_CHECKING:
    from pathlib import Path


def fake(folder: Path, answer: str) -> Path:
    """A prefix whose python prints `answer` to whatever it is asked."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    return folder


def test_a_prefix_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotAnEnvironment, match=r"nowhere: no such folder; name the folder that holds bin/python"):
        scan(str(tmp_path / "nowhere"))


def test_an_empty_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotAnEnvironment, match=r"not a Python environment \(no bin/python\)"):
        scan(str(tmp_path))


def test_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotAnEnvironment, match="file: not a directory"):
        scan(str(tmp_path / "file"))


def test_an_interpreter_that_is_gone_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to("/nowhere/python3")
    with pytest.raises(NotAnEnvironment, match=r"broken link to /nowhere/python3; make the environment again"):
        scan(str(tmp_path))


@pytest.mark.root
def test_an_interpreter_in_a_closed_folder_is_not_reported_as_a_broken_link(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "python3").write_text("")
    with folder_of(NOBODY) as folder:
        (folder / "bin").mkdir()
        (folder / "bin" / "python").symlink_to(tmp_path / "python3")
        with pytest.raises(NotAnEnvironment, match=r"bin/python: no permission to read .*/python3; run as a user who"):
            as_user(NOBODY, lambda: locate(str(folder)))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("echo what >&2; exit 3", "does not run as Python 3: what"),
        ("exit 3", "does not run as Python 3: exit code 3"),
        ("echo hello", "not a Python interpreter; name the folder of an environment"),
        ("echo 'Unknown option: -I' >&2; exit 2", "does not run as Python 3: Unknown option: -I"),
    ],
)
def test_a_program_that_is_not_python_is_reported_in_one_sentence(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(NotAnEnvironment, match=said):
        scan(str(fake(tmp_path / "env", answer)))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"implementation": "pypy"}, "pypy"),
        ({"debug": True}, "a debug build"),
        ({"free_threaded": True}, "a free-threaded build"),
        ({"musl": True}, "a build for musl"),
        ({"version": "3.6.15"}, r"Python 3\.6\.15"),
    ],
)
def test_an_interpreter_of_another_kind_is_refused_clearly(tmp_path: Path, said: dict[str, object], kind: str) -> None:
    facts = {
        "version": "3.12.1",
        "implementation": "cpython",
        "debug": False,
        "free_threaded": False,
        "musl": False,
    } | said
    answer = "cat <<'END'\n" + str(facts).replace("'", '"').replace("True", "true").replace("False", "false") + "\nEND"
    with pytest.raises(NotAnEnvironment, match=f": {kind}, which Lamella does not support; use an ordinary CPython"):
        scan(str(fake(tmp_path / "env", answer)))


@pytest.mark.parametrize("name", ["with space", "per%cent", "ünïcode", "quo'te"])
@pytest.mark.slow
def test_prefixes_with_unusual_characters_are_scanned(tmp_path: Path, name: str) -> None:
    environment = venv(tmp_path / name)
    scanned = scan(str(environment))
    assert scanned.prefix == str(environment)
    assert os.fsencode(str(environment)) in scanned.prefixes


@pytest.mark.slow
def test_a_prefix_reached_through_a_link_is_known_by_both_names(tmp_path: Path) -> None:
    environment = venv(tmp_path / "env")
    (tmp_path / "link").symlink_to(environment)
    for named in (environment, tmp_path / "link"):
        scanned = scan(str(named))
        assert {os.fsencode(str(environment))} <= set(scanned.prefixes)
    assert os.fsencode(str(tmp_path / "link")) in scan(str(tmp_path / "link")).prefixes


@pytest.mark.slow
def test_a_venv_that_was_made_through_a_link_is_known_by_the_link_s_name(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    venv(tmp_path / "link" / "env")
    assert os.fsencode(str(tmp_path / "link" / "env")) in scan(str(tmp_path / "real" / "env")).prefixes


@pytest.mark.parametrize(
    "line",
    [
        "VIRTUAL_ENV='/made here'",
        'VIRTUAL_ENV="/made here"',
        '        VIRTUAL_ENV=$(cygpath "/made here")',
        "        export VIRTUAL_ENV='/made here'",
    ],
)
def test_where_a_venv_was_made_is_read_from_every_form_of_activate(line: str, tmp_path: Path) -> None:
    """venv's of Python 3.13 is indented, uv's and virtualenv's have their own quotes."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/activate").write_text(f"deactivate () {{\n    unset VIRTUAL_ENV\n}}\n{line}\n")
    assert made_at(str(tmp_path)) == "/made here"


@pytest.mark.slow
def test_a_moved_venv_is_reported_and_its_old_name_is_rewritten_too(tmp_path: Path) -> None:
    made = venv(tmp_path / "before")
    made.rename(tmp_path / "after")
    scanned = scan(str(tmp_path / "after"))
    assert os.fsencode(str(made)) in scanned.prefixes
    assert [finding.kind for finding in scanned.findings] == ["moved"]
