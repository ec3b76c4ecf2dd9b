from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lamella.builder import occurrences
from lamella.layers import relocate
from lamella.layers.relocate import CannotRelocate, move, rewrite
from support.trees import content, write

TEXT = {"kind": "text"}
BINARY: dict[str, object] = {"kind": "binary"}


def environment(folder: Path, prefix: str, files: dict[str, str]) -> Path:
    listed = {"prefix": prefix, "files": [{"path": name.rstrip("*"), "kind": "text"} for name in sorted(files)]}
    return write(folder, files | {".lamella/relocate/pypi-it.json": json.dumps(listed)})


def test_the_rule_for_what_is_a_path_is_the_packers() -> None:
    assert relocate.pattern(b"/opt/env").pattern == occurrences.pattern((b"/opt/env",)).pattern


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


def test_a_binary_has_no_other_room_than_it_says() -> None:
    with pytest.raises(CannotRelocate, match="holds the prefix in 12 bytes, where it needs 13"):
        rewrite(b"/opt/env/lib" + 9 * b"\0" + b"next", BINARY, b"/opt/env", b"/opt/env2")


def test_a_binary_grows_into_the_room_that_the_packer_knows_of() -> None:
    content = b"/opt/env/lib\0\0\0\0\0next"

    assert rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.2") == b"/opt/env-1.2/lib\0next"
    with pytest.raises(CannotRelocate, match="in 16 bytes, where it needs 17"):
        rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.23")


def test_the_place_of_condas_placeholder_is_room_and_no_more_than_that(tmp_path: Path) -> None:
    listed = {"prefix": "/opt/env", "files": [{"path": "x.so", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/conda-x.json": json.dumps(listed)})
    (tmp_path / "x.so").write_bytes(b"\0/opt/env/lib" + 400 * b"\0" + b"next")

    with pytest.raises(CannotRelocate, match=r"x\.so holds the prefix in 259 bytes, where it needs 260"):
        move(str(tmp_path), "/" + 255 * "x")
    move(str(tmp_path), "/" + 254 * "x")

    assert (tmp_path / "x.so").read_bytes() == b"\0/" + 254 * b"x" + b"/lib" + 153 * b"\0" + b"next"


def test_what_was_moved_away_can_be_moved_back() -> None:
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
    environment(place, "/opt/env", {"bin/tool*": script})
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


@pytest.mark.parametrize("prefix", ["/it's", '/a"b', "/$x", "/a\\b", "/a\nb", "/`x`"])
def test_a_folder_that_scripts_can_not_quote_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(CannotRelocate, match="can't be an environment's folder"):
        move(str(environment(tmp_path, "/opt/env", {"x": "/opt/env"})), prefix)


def test_moving_keeps_modes_and_notes_the_new_prefix(tmp_path: Path) -> None:
    environment(tmp_path, "/opt/env", {"bin/tool*": "#!/bin/sh\necho /opt/env\n", "etc/x": "/opt/env"})

    assert move(str(tmp_path), "/moved") == 3

    assert os.stat(tmp_path / "bin/tool").st_mode & 0o777 == 0o755
    assert content(tmp_path)["etc/x"] == "/moved"
    assert move(str(tmp_path), "/moved") == 0
    assert move(str(tmp_path), "/again") == 3
    assert content(tmp_path)["etc/x"] == "/again"


def test_moving_breaks_hardlinks_and_writes_into_none(tmp_path: Path) -> None:
    environment(tmp_path / "env", "/opt/env", {"x": "/opt/env"})
    os.link(tmp_path / "env/x", tmp_path / "store")

    move(str(tmp_path / "env"), "/moved")

    assert (tmp_path / "store").read_text() == "/opt/env"


def test_a_move_that_crashed_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"f{number}": "/opt/env" for number in range(5)}
    environment(tmp_path, "/opt/env", files)
    calls = 0
    real = os.replace

    def crash(source: str, target: str) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        move(str(tmp_path), "/opt/env/opt/env")
    monkeypatch.setattr(os, "replace", real)
    move(str(tmp_path), "/opt/env/opt/env")

    found = content(tmp_path)
    assert {found[name] for name in files} == {"/opt/env/opt/env"}
    assert not any(name.startswith(".lamella/moving") for name in found)


def test_a_move_that_fails_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"a": "/opt/env", "b": "/opt/env\0"})
    listed = {"prefix": "/opt/env", "files": [{"path": "a", "kind": "text"}, {"path": "b", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/pypi-x.json": json.dumps(listed)})

    with pytest.raises(CannotRelocate, match="b holds the prefix in 8 bytes, where it needs 14: choose a shorter path"):
        move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/env"


def test_the_interpreters_own_binaries_may_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, {"a": "/opt/env", "b": "/opt/env\0"})
    listed = {"prefix": "/opt/env", "files": [{"path": "a", "kind": "text"}, {"path": "b", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/python-python.json": json.dumps(listed)})

    move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/elsewhere"
    assert content(tmp_path)["b"] == "/opt/env\0"


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link/passwd", "out", "", ".", "no/such"])
def test_a_list_can_not_reach_what_is_outside(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"secret": "/opt/env", "env/link": "->/etc", "env/out": "->../secret"})
    listed = {"prefix": "/opt/env", "files": [{"path": path, "kind": "text"}]}
    write(tmp_path / "env", {".lamella/relocate/pypi-x.json": json.dumps(listed)})

    with pytest.raises(CannotRelocate, match="is no file of the environment"):
        move(str(tmp_path / "env"), "/moved")


@pytest.mark.parametrize(
    "listed", ["[]", "{", '{"prefix": "x", "files": []}', '{"prefix": "/x", "files": [{"path": 1}]}']
)
def test_a_list_that_is_none_is_named(tmp_path: Path, listed: str) -> None:
    write(tmp_path, {".lamella/relocate/pypi-x.json": listed})

    with pytest.raises(CannotRelocate, match=r"pypi-x\.json is no list of files"):
        move(str(tmp_path), "/moved")
