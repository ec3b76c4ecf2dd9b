"""One rewritten file: text, shebang lines, strings in binaries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lamella.layers.relocation.move import move
from lamella.layers.relocation.prefixes import CannotRelocate
from lamella.layers.relocation.rewrite import rewrite
from support.relocatable import relocatable

TEXT = {"kind": "text"}
BINARY: dict[str, object] = {"kind": "binary"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"prefix=/opt/env\nlibdir=/opt/env/lib", b"prefix=/home/me/e\nlibdir=/home/me/e/lib"),
        (b"-L/opt/env/lib -I/opt/env/include", b"-L/home/me/e/lib -I/home/me/e/include"),
        (b"file:///opt/env/x '/opt/env':/opt/env;", b"file:///home/me/e/x '/home/me/e':/home/me/e;"),
        (b"/opt/env2 /opt/env.old /opt/env-3 /mnt/opt/env", b"/opt/env2 /opt/env.old /opt/env-3 /mnt/opt/env"),
    ],
)
def test_text_names_the_new_prefix_where_it_named_the_old_one(before: bytes, after: bytes) -> None:
    assert rewrite(before, TEXT, b"/opt/env", b"/home/me/e") == after
    assert rewrite(after, TEXT, b"/home/me/e", b"/opt/env") == before


def test_a_prefix_that_contains_the_old_one_is_not_replaced_twice() -> None:
    assert rewrite(b"/opt/env/x", TEXT, b"/opt/env", b"/opt/env/opt/env") == b"/opt/env/opt/env/x"


def test_a_c_string_keeps_its_length() -> None:
    moved = rewrite(b"\x7fELF\0/opt/env/lib\0next\0", BINARY, b"/opt/env", b"/e")

    assert moved == b"\x7fELF\0/e/lib\0\0\0\0\0\0\0next\0"


def test_every_occurrence_in_one_c_string_moves() -> None:
    moved = rewrite(b"/opt/env/a:/opt/env/b:/x\0next", BINARY, b"/opt/env", b"/e")

    assert moved == b"/e/a:/e/b:/x" + 12 * b"\0" + b"\0next"


def test_a_binary_grows_into_no_more_than_its_listed_room() -> None:
    with pytest.raises(CannotRelocate, match="holds the prefix in 12 bytes, and needs 13"):
        rewrite(b"/opt/env/lib" + 9 * b"\0" + b"next", BINARY, b"/opt/env", b"/opt/env2")


def test_a_binary_grows_into_its_listed_room() -> None:
    content = b"/opt/env/lib\0\0\0\0\0next"

    assert rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.2") == b"/opt/env-1.2/lib\0next"
    with pytest.raises(CannotRelocate, match="in 16 bytes, and needs 17"):
        rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.23")


def test_a_moved_string_can_be_moved_back() -> None:
    entry = BINARY | {"room": 20}
    content = b"\0/opt/env/a\0" + 12 * b"\0" + b"x/opt/env/b:/opt/env/c" + 25 * b"\0" + b"end"

    moved = rewrite(content, entry, b"/opt/env", b"/a/longer/prefix/18")

    assert moved != content
    assert rewrite(moved, entry, b"/a/longer/prefix/18", b"/opt/env") == content


@pytest.mark.parametrize("prefix", ["/a place/env", "/" + "long/" * 30 + "env"])
@pytest.mark.parametrize("arguments", ["", " -s"])
def test_a_script_starts_where_a_shebang_line_can_not_hold_the_prefix(
    tmp_path: Path, prefix: str, arguments: str
) -> None:
    place = Path(f"{tmp_path}{prefix}")
    script = f"#!/opt/env/bin/python{arguments}\nimport sys; print(sys.argv[1:])\n"
    relocatable(place, "/opt/env", {"bin/tool*": script})
    (place / "bin/python").symlink_to(sys.executable)

    move(str(place), str(place))

    ran = subprocess.run([place / "bin/tool", "a b", "$c"], check=True, capture_output=True, text=True)
    assert ran.stdout == "['a b', '$c']\n"


def test_a_long_shebang_line_of_another_program_finds_it_on_path() -> None:
    moved = rewrite(b"#!/opt/env/bin/perl -w\n1;\n", TEXT, b"/opt/env", b"/" + b"x" * 130)

    assert moved == b"#!/usr/bin/env perl\n1;\n"


def test_a_script_that_was_moved_behind_a_trampoline_moves_again() -> None:
    moved = rewrite(b"#!/opt/env/bin/python\n1\n", TEXT, b"/opt/env", b"/a b")

    assert rewrite(moved, TEXT, b"/a b", b"/c") == moved.replace(b"/a b", b"/c")


def test_env_shebangs_stay() -> None:
    assert rewrite(b"#!/usr/bin/env python\n", TEXT, b"/opt/env", b"/x") == b"#!/usr/bin/env python\n"
