from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.content import scripts

if TYPE_CHECKING:
    from pathlib import Path

LONG = "/srv/" + "x" * 130


def test_entry_points_keep_the_case_of_names_and_skip_invalid_lines() -> None:
    content = b"[console_scripts]\nRun = pkg.cli:main\nbad = nothing\nextra = pkg:Main.go [fast]\n[gui_scripts]\nw=pkg.w:main\n"
    assert scripts.entry_points(content) == {
        "Run": ("pkg.cli", "main"),
        "extra": ("pkg", "Main.go"),
        "w": ("pkg.w", "main"),
    }


@pytest.mark.parametrize("content", [b"", b"[console_scripts\n", b"\xff\xfe", b"no section = here"])
def test_an_entry_points_file_that_is_broken_has_none(content: bytes) -> None:
    assert scripts.entry_points(content) == {}


@pytest.mark.parametrize(
    "first",
    [
        b"#!/srv/env/bin/python\n",
        b"#!/srv/env/bin/python3\n",
        b"#!/usr/bin/python3.11\r\n",
        b"#! /srv/env/bin/python3\n",
        b"#!/bin/sh\n'''exec' \"/srv/my env/bin/python3\" \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' /srv/env/bin/python \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' '/srv/env/bin/python' \"$0\" \"$@\"\n' '''\n",
        b"#!/bin/sh\n'''exec' \"/srv/env/bin/python3.11\" \"$0\" \"$@\" #'''\n",
        b"#!/bin/sh\n'''exec' \"$(dirname -- \"$(realpath -- \"$0\")\")\"/'python3' \"$0\" \"$@\"\n' '''\n",
    ],
)
def test_every_installers_shebang_becomes_one(first: bytes) -> None:
    assert scripts.with_shebang(first + b"print(1)\n", "/opt/env") == b"#!/opt/env/bin/python\nprint(1)\n"


def test_a_conda_package_s_script_may_have_lost_a_path_that_was_too_long() -> None:
    first = b"#!/usr/bin/env python3.11 -s\nprint(1)\n"
    assert scripts.with_shebang(first, "/opt/env", conda=True) == b"#!/opt/env/bin/python -s\nprint(1)\n"
    assert scripts.with_shebang(first, "/opt/env") == first


def test_arguments_of_a_shebang_are_kept() -> None:
    assert scripts.with_shebang(b"#!/srv/env/bin/python -E -s\n", "/opt/env") == b"#!/opt/env/bin/python -E -s\n"


@pytest.mark.parametrize(
    "first", [b"#!/usr/bin/env python\n", b"#!/bin/bash\n", b"import os\n", b"#!/srv/env/bin/perl\n"]
)
def test_a_first_line_that_names_no_python_stays(first: bytes) -> None:
    assert scripts.with_shebang(first, "/opt/env") == first
    assert not scripts.names_python(first)


@pytest.mark.parametrize("prefix", ["short", "with space", "x" * 130])
def test_a_script_runs_at_any_image_prefix(tmp_path: Path, prefix: str) -> None:
    python = tmp_path / prefix / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    script = tmp_path / "tool"
    script.write_bytes(scripts.script("platform", "python_implementation", str(tmp_path / prefix)))
    script.chmod(0o755)
    done = subprocess.run([script, "an argument"], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "CPython", "sys.exit says what the entry point returned"
