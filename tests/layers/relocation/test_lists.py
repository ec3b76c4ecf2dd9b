"""Lists of files to rewrite, which come from a stranger."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import pytest

from lamella.layers.relocation import lists
from lamella.layers.relocation.lists import relocate
from lamella.layers.relocation.move import move
from lamella.layers.relocation.prefixes import CannotRelocate
from support.relocatable import relocatable
from support.trees import content, write

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_that_is_listed_many_times_is_rewritten_once(tmp_path: Path) -> None:
    root = relocatable(tmp_path / "env", "/opt/env", {"bin/tool": "#!/opt/env/bin/python\n"})
    listed = {"prefix": "/opt/env", "files": [{"path": "bin/tool", "kind": "text"}] * 3000}
    for name in ("pypi-it.json", "pypi-other.json"):
        (root / ".lamella/relocate" / name).write_text(json.dumps(listed))
    written: list[str] = []
    relocate(str(root), "/home/me/e", lambda path, *_: written.append(path))
    assert sorted(written) == [".lamella/relocate/pypi-it.json", ".lamella/relocate/pypi-other.json", "bin/tool"]


@pytest.mark.parametrize("what", ["list", "file"])
def test_a_list_or_file_above_its_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    root = relocatable(tmp_path / "env", "/opt/env", {"bin/tool": "#!/opt/env/bin/python\n"})
    monkeypatch.setattr(lists, "_MAX_LIST" if what == "list" else "_MAX_FILE", 10)
    with pytest.raises(
        CannotRelocate, match="not a list of files" if what == "list" else "bin/tool: 22 bytes, too large"
    ):
        relocate(str(root), "/home/me/e", lambda *_: None)


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000, b"[]", b"null", b"\xff", b'{"prefix": 5, "files": []}', b'{"prefix": "/\\ud800", "files": []}',
        b'{"prefix": "/a", "files": [5]}', b'{"prefix": "/a", "files": [{"path": 5, "kind": "text"}]}', b'{"prefix": "/a"}',
        b'{"prefix": "/a", "files": [{"path": "\\ud800", "kind": "text"}]}', b'{"prefix": "/a", "files": [{"path": "a\\u0000"}]}',
    ],
)  # fmt: skip
def test_a_malformed_list_is_refused_or_rewrites_no_file(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / ".lamella/relocate"
    folder.mkdir(parents=True)
    (folder / "pypi-it.json").write_bytes(content)
    written: list[str] = []
    with contextlib.suppress(CannotRelocate):
        relocate(str(tmp_path), "/home/me/e", lambda path, *_: written.append(path))
    assert set(written) <= {".lamella/relocate/pypi-it.json"}


def test_the_place_of_condas_placeholder_is_room_and_no_more_than_that(tmp_path: Path) -> None:
    listed = {"prefix": "/opt/env", "files": [{"path": "x.so", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/conda-x.json": json.dumps(listed)})
    (tmp_path / "x.so").write_bytes(b"\0/opt/env/lib" + 400 * b"\0" + b"next")

    with pytest.raises(CannotRelocate, match=r"x\.so holds the prefix in 259 bytes, and needs 260"):
        move(str(tmp_path), "/" + 255 * "x")
    move(str(tmp_path), "/" + 254 * "x")

    assert (tmp_path / "x.so").read_bytes() == b"\0/" + 254 * b"x" + b"/lib" + 153 * b"\0" + b"next"


def test_the_interpreters_own_binaries_may_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, {"a": "/opt/env", "b": "/opt/env\0"})
    listed = {"prefix": "/opt/env", "files": [{"path": "a", "kind": "text"}, {"path": "b", "kind": "binary"}]}
    write(tmp_path, {".lamella/relocate/python-python.json": json.dumps(listed)})

    move(str(tmp_path), "/opt/elsewhere")

    assert content(tmp_path)["a"] == "/opt/elsewhere"
    assert content(tmp_path)["b"] == "/opt/env\0"


def test_an_uninstalled_file_does_not_stop_a_move(tmp_path: Path) -> None:
    relocatable(tmp_path, "/opt/env", {"bin/tool*": "#!/opt/env/bin/python\n", "x": "/opt/env"})
    (tmp_path / "bin/tool").unlink()

    move(str(tmp_path), "/moved")

    assert content(tmp_path)["x"] == "/moved"


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
