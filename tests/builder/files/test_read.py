from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import EnvironmentChanged
from lamella.builder.files import read
from lamella.builder.files.read import same

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_made_by_another_environment_does_not_count_as_a_change(tmp_path: Path) -> None:
    """uv links every environment's files to its cache's: each install changes the inodes of all the others."""
    file = tmp_path / "a"
    file.write_text("a")
    before = os.stat(file)
    os.link(file, tmp_path / "b")
    assert same(before, os.stat(file))


def test_other_bytes_with_the_old_time_count_as_a_change(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("a")
    os.utime(file, ns=(1, 1))
    before = os.stat(file)
    while os.stat(file).st_ctime_ns == before.st_ctime_ns:
        file.write_text("b")
        os.utime(file, ns=(1, 1))
    assert not same(before, os.stat(file))


@pytest.mark.parametrize("patience", [0, 60])
def test_a_slow_disk_changes_neither_results_nor_errors(
    patience: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small files are then read by several threads, as large ones always are."""
    monkeypatch.setattr(read, "_PATIENCE", patience)
    contents = {f"small{number:03}": b"%d /srv/env" % number for number in range(300)}
    contents |= {f"large{number}": bytes(number) + b"/srv/env" + bytes(5 << 20) for number in range(3)}
    found = []
    for name, content in contents.items():
        path = tmp_path / name
        path.write_bytes(content)
        found.append((str(path), os.lstat(path)))
    made = dict(read.read_all(found, (b"/srv/env",)))
    assert {os.path.basename(path): content.digest for path, content in made.items()} == {
        name: hashlib.sha256(content).hexdigest() for name, content in contents.items()
    }
    assert {content.holds for content in made.values()} == {"text", "binary"}
    for name in ("small299", "large0"):
        (tmp_path / name).write_bytes(b"other")
        with pytest.raises(EnvironmentChanged, match=f"{name}: changed while"):
            list(read.read_all(found, ()))
        (tmp_path / name).unlink()
        found = [each for each in found if not each[0].endswith(name)]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no FIFOs here")
@pytest.mark.parametrize("size", [0, 1, 200_000])
@pytest.mark.parametrize("kind", ["folder", "FIFO", "FIFO with a writer"])
def test_a_file_that_was_replaced_by_another_kind_has_changed(tmp_path: Path, size: int, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    seen = os.lstat(path)
    path.unlink()
    with contextlib.ExitStack() as stack:
        if kind == "folder":
            path.mkdir()
        else:
            os.mkfifo(path)
        if kind == "FIFO with a writer":
            stack.callback(os.close, os.open(path, os.O_RDWR))
        with pytest.raises(EnvironmentChanged, match="file: changed while"):
            list(read.read_all([(str(path), seen)], ()))


def test_what_a_thread_read_before_is_not_found_in_the_next_file(tmp_path: Path) -> None:
    contents = [bytes(2 << 20) + b"/srv/env", b"/srv" + bytes(200 << 10), b"/env" + bytes(3 << 20), bytes(130 << 10)]
    found = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}"
        path.write_bytes(content)
        found.append((str(path), os.lstat(path)))
    made = dict(read.read_all(found, (b"/srv/env",)))
    assert [made[path].holds for path, _ in found] == ["binary", "", "", ""]
    assert [made[path].digest for path, _ in found] == [hashlib.sha256(content).hexdigest() for content in contents]
