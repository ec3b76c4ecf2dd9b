from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from lamella.builder.files import prefix_pattern
from lamella.layers.mounting import relocate
from lamella.layers.mounting.relocate import CannotRelocate, move, rewrite
from support.people import NOBODY, as_user, folder_of
from support.processes import exit_code
from support.trees import content, write

TEXT = {"kind": "text"}
BINARY: dict[str, object] = {"kind": "binary"}


def environment(folder: Path, prefix: str, files: dict[str, str]) -> Path:
    listed = {"prefix": prefix, "files": [{"path": name.rstrip("*"), "kind": "text"} for name in sorted(files)]}
    return write(folder, files | {".lamella/relocate/pypi-it.json": json.dumps(listed)})


def test_paths_are_recognised_by_the_packers_rule() -> None:
    assert relocate.pattern(b"/opt/env").pattern == prefix_pattern.pattern((b"/opt/env",)).pattern


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


def test_a_file_that_is_listed_many_times_is_rewritten_once(tmp_path: Path) -> None:
    root = environment(tmp_path / "env", "/opt/env", {"bin/tool": "#!/opt/env/bin/python\n"})
    listed = {"prefix": "/opt/env", "files": [{"path": "bin/tool", "kind": "text"}] * 3000}
    for name in ("pypi-it.json", "pypi-other.json"):
        (root / ".lamella/relocate" / name).write_text(json.dumps(listed))
    written: list[str] = []
    relocate.relocate(str(root), "/home/me/e", lambda path, *_: written.append(path))
    assert sorted(written) == [".lamella/relocate/pypi-it.json", ".lamella/relocate/pypi-other.json", "bin/tool"]


@pytest.mark.parametrize("what", ["list", "file"])
def test_what_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    root = environment(tmp_path / "env", "/opt/env", {"bin/tool": "#!/opt/env/bin/python\n"})
    monkeypatch.setattr(relocate, "_MAX_LIST" if what == "list" else "_MAX_FILE", 10)
    with pytest.raises(
        CannotRelocate, match="not a list of files" if what == "list" else "bin/tool: 22 bytes, too large"
    ):
        relocate.relocate(str(root), "/home/me/e", lambda *_: None)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000, b"[]", b"null", b"\xff", b'{"prefix": 5, "files": []}', b'{"prefix": "/\\ud800", "files": []}',
        b'{"prefix": "/a", "files": [5]}', b'{"prefix": "/a", "files": [{"path": 5, "kind": "text"}]}', b'{"prefix": "/a"}',
        b'{"prefix": "/a", "files": [{"path": "\\ud800", "kind": "text"}]}', b'{"prefix": "/a", "files": [{"path": "a\\u0000"}]}',
    ],
)  # fmt: skip
def test_a_malformed_list_is_refused_or_rewrites_no_file(tmp_path: Path, content: bytes) -> None:
    lists = tmp_path / ".lamella/relocate"
    lists.mkdir(parents=True)
    (lists / "pypi-it.json").write_bytes(content)
    written: list[str] = []
    with contextlib.suppress(CannotRelocate):
        relocate.relocate(str(tmp_path), "/home/me/e", lambda path, *_: written.append(path))
    assert set(written) <= {".lamella/relocate/pypi-it.json"}


def test_a_prefix_that_contains_the_old_one_is_not_replaced_twice() -> None:
    assert rewrite(b"/opt/env/x", TEXT, b"/opt/env", b"/opt/env/opt/env") == b"/opt/env/opt/env/x"


def test_a_c_string_keeps_its_length() -> None:
    moved = rewrite(b"\x7fELF\0/opt/env/lib\0next\0", BINARY, b"/opt/env", b"/e")

    assert moved == b"\x7fELF\0/e/lib\0\0\0\0\0\0\0next\0"


def test_every_occurrence_in_one_c_string_moves() -> None:
    moved = rewrite(b"/opt/env/a:/opt/env/b:/x\0next", BINARY, b"/opt/env", b"/e")

    assert moved == b"/e/a:/e/b:/x" + 12 * b"\0" + b"\0next"


def test_a_binary_has_no_other_room_than_it_says() -> None:
    with pytest.raises(CannotRelocate, match="holds the prefix in 12 bytes, and needs 13"):
        rewrite(b"/opt/env/lib" + 9 * b"\0" + b"next", BINARY, b"/opt/env", b"/opt/env2")


def test_a_binary_grows_into_the_room_that_the_packer_knows_of() -> None:
    content = b"/opt/env/lib\0\0\0\0\0next"

    assert rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.2") == b"/opt/env-1.2/lib\0next"
    with pytest.raises(CannotRelocate, match="in 16 bytes, and needs 17"):
        rewrite(content, BINARY | {"room": 12}, b"/opt/env", b"/opt/env-1.23")


def test_the_place_of_condas_placeholder_is_room_and_no_more_than_that(tmp_path: Path) -> None:
    listed = {"prefix": "/opt/env", "files": [{"path": "x.so", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/conda-x.json": json.dumps(listed)})
    (tmp_path / "x.so").write_bytes(b"\0/opt/env/lib" + 400 * b"\0" + b"next")

    with pytest.raises(CannotRelocate, match=r"x\.so holds the prefix in 259 bytes, and needs 260"):
        move(str(tmp_path), "/" + 255 * "x")
    move(str(tmp_path), "/" + 254 * "x")

    assert (tmp_path / "x.so").read_bytes() == b"\0/" + 254 * b"x" + b"/lib" + 153 * b"\0" + b"next"


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
    with pytest.raises(CannotRelocate, match="not usable as a prefix"):
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

    with pytest.raises(CannotRelocate, match="b holds the prefix in 8 bytes, and needs 14: choose a shorter path"):
        move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/env"


def test_the_interpreters_own_binaries_may_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, {"a": "/opt/env", "b": "/opt/env\0"})
    listed = {"prefix": "/opt/env", "files": [{"path": "a", "kind": "text"}, {"path": "b", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/python-python.json": json.dumps(listed)})

    move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/elsewhere"
    assert content(tmp_path)["b"] == "/opt/env\0"


def crash_in_the_middle(folder: Path, prefix: str) -> None:
    """Moves, in a process of its own that ends when some of the files are in their places."""
    real = os.replace

    def replace(source: str, target: str) -> None:
        if source.endswith("/2"):
            os._exit(9)
        real(source, target)

    def move_and_die() -> None:
        os.replace = replace  # type: ignore[assignment] # in this process alone
        move(str(folder), prefix)

    assert exit_code(move_and_die) == 9


@pytest.mark.parametrize("prefix", ["/first", "/second", "/opt/env"])
def test_a_move_that_crashed_ends_where_the_next_one_wants_it(tmp_path: Path, prefix: str) -> None:
    files = {f"f{number}": "/opt/env" for number in range(5)}
    environment(tmp_path, "/opt/env", files)
    crash_in_the_middle(tmp_path, "/first")
    assert {content(tmp_path)[name] for name in files} == {"/opt/env", "/first"}

    move(str(tmp_path), prefix)

    assert {content(tmp_path)[name] for name in files} == {prefix}
    assert move(str(tmp_path), prefix) == 0


def test_files_removed_since_a_crash_stay_away(tmp_path: Path) -> None:
    environment(tmp_path, "/opt/env", {f"f{number}": "/opt/env" for number in range(5)})
    crash_in_the_middle(tmp_path, "/first")
    (tmp_path / "f4").unlink()

    move(str(tmp_path), "/second")

    assert content(tmp_path).keys() & {"f3", "f4"} == {"f3"}


def test_who_finds_the_prefix_right_finds_all_of_it_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(tmp_path, "/opt/env", {relocate.PREFIX_FILE: "/opt/env", "a": "/opt/env", "z": "/opt/env"})
    order: list[str] = []
    real = os.replace

    def watched(source: str, target: str) -> None:
        order.append(os.path.relpath(target, tmp_path))
        real(source, target)

    monkeypatch.setattr(os, "replace", watched)
    move(str(tmp_path), "/moved")

    assert order[-1] == relocate.PREFIX_FILE
    assert len(order) == 4


@pytest.mark.slow
def test_of_many_who_move_at_the_same_time_one_does_it_and_the_others_find_it_done(tmp_path: Path) -> None:
    files = {f"f{number}": "/opt/env" for number in range(50)}
    environment(tmp_path, "/opt/env", files)

    with ProcessPoolExecutor(8, mp_context=multiprocessing.get_context("spawn")) as pool:
        changed = list(pool.map(move, [str(tmp_path)] * 16, ["/moved"] * 16))

    assert sorted(changed) == [0] * 15 + [51]
    assert {content(tmp_path)[name] for name in files} == {"/moved"}


def test_an_uninstalled_file_does_not_stop_a_move(tmp_path: Path) -> None:
    environment(tmp_path, "/opt/env", {"bin/tool*": "#!/opt/env/bin/python\n", "x": "/opt/env"})
    (tmp_path / "bin/tool").unlink()

    move(str(tmp_path), "/moved")

    assert content(tmp_path)["x"] == "/moved"


@pytest.mark.parametrize("prefix", ["rel/x", "", "/a/../b", "/a/", "/a//b", "/a/./b", "//a"])
def test_an_invalid_prefix_is_refused(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(CannotRelocate, match="use an absolute path"):
        move(str(environment(tmp_path, "/opt/env", {"x": "/opt/env"})), prefix)


@pytest.mark.parametrize("prefix", ["/", "/usr", "/usr/local", "/usr/bin", "/bin", "/etc", "/tmp", "/home", "/opt"])
def test_a_prefix_that_is_not_the_environments_alone_is_refused(tmp_path: Path, prefix: str) -> None:
    environment(tmp_path, "/opt/env", {"x": "#!/usr/bin/env python\n# /opt/env /etc/passwd"})

    with pytest.raises(CannotRelocate, match="files name it for the system's own paths"):
        move(str(tmp_path), prefix)

    move(str(tmp_path), "/usr/local/env")
    move(str(tmp_path), "/opt/env")
    assert content(tmp_path)["x"] == "#!/usr/bin/env python\n# /opt/env /etc/passwd"


@pytest.mark.root
def test_a_folder_of_another_user_says_whose_work_it_is(tmp_path: Path) -> None:
    with folder_of(0) as folder:
        environment(folder / "env", "/opt/env", {"x": "/opt/env", relocate.PREFIX_FILE: "/opt/env\n"})

        with pytest.raises(CannotRelocate, match=r"Permission denied\), and is made for /opt/env: let its owner run"):
            as_user(NOBODY, lambda: move(str(folder / "env"), "/moved"))

        assert as_user(NOBODY, lambda: move(str(folder / "env"), "/opt/env")) == 0


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link/passwd", "out", "", "."])
def test_a_list_can_not_reach_files_outside(tmp_path: Path, path: str) -> None:
    write(tmp_path, {"secret": "/opt/env", "env/link": "->/etc", "env/out": "->../secret"})
    listed = {"prefix": "/opt/env", "files": [{"path": path, "kind": "text"}]}
    write(tmp_path / "env", {".lamella/relocate/pypi-x.json": json.dumps(listed)})

    with pytest.raises(CannotRelocate, match="not a file of the environment"):
        move(str(tmp_path / "env"), "/moved")


@pytest.mark.parametrize(
    "listed", ["[]", "{", '{"prefix": "x", "files": []}', '{"prefix": "/x", "files": [{"path": 1}]}']
)
def test_an_invalid_list_is_named(tmp_path: Path, listed: str) -> None:
    write(tmp_path, {".lamella/relocate/pypi-x.json": listed})

    with pytest.raises(CannotRelocate, match=r"pypi-x\.json: not a list of files"):
        move(str(tmp_path), "/moved")
