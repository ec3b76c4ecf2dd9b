from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from lamella.comparison.programs.scripts import interpreter, script

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("start", "found"),
    [
        ("#!/usr/bin/python3\n", "/usr/bin/python3"),
        ("#!/home/ada/python projects/.venv/bin/python3.11 -I\n", "/home/ada/python projects/.venv/bin/python3.11"),
        ("#!/bin/sh\n'''exec' \"/a/long path/bin/python\" \"$0\" \"$@\"\n' '''\n", "/a/long path/bin/python"),
        ("#!/bin/sh\nexec something\n", sys.executable),
        ("\x7fELF", sys.executable),
    ],
)
def test_the_interpreter_of_a_script_is_the_one_that_it_names(start: str, found: str, tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text(f"{start}import tool\n")
    assert interpreter(str(path)) == found


def test_a_script_that_asks_env_has_the_first_interpreter_on_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tool", "python3"):
        (tmp_path / name).write_text("#!/usr/bin/env python3\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreter(script("tool")) == str(tmp_path / "python3")


def test_a_program_beside_this_interpreter_is_found_without_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tool").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert script("tool") == str(tmp_path / "tool")
    assert script("other-tool") == ""
