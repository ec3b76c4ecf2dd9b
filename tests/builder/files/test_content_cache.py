"""The cache of file contents: it saves reads, and never returns outdated contents."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files import content_cache
from lamella.builder.files import read as contents
from lamella.builder.files.content_cache import VERSION, ContentCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lamella.builder.files.read import FileContent

OLD = 1_600_000_000_000_000_000


class Bytes:
    """Counts the bytes that are read."""

    def __init__(self) -> None:
        self.read = 0
        self._lock = threading.Lock()

    def begin(self, task: str, total: int | None, unit: str) -> None:
        pass

    def advance(self, task: str, amount: int) -> None:
        assert task == "reading files"
        with self._lock:
            self.read += amount

    def end(self, task: str) -> None:
        pass


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files that are old enough to be remembered: ctime can't be set, so the clock is ahead."""
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.setattr("lamella.builder.files.content_cache._RACY", (-1_000_000_000_000,) * 2)
    return folder


def read(database: Path, folder: Path, *prefixes: bytes) -> tuple[dict[str, FileContent], int]:
    """By file name what the files of `folder` hold, and how many bytes were read for that."""
    progress = Bytes()
    seen = {str(path): os.lstat(path) for path in folder.iterdir()}
    with contextlib.closing(ContentCache(str(database))) as hashes:
        found = hashes.contents(seen, prefixes, progress)
    return {os.path.basename(path): content for path, content in found.items()}, progress.read


def test_a_second_scan_reads_nothing(files: Path, tmp_path: Path) -> None:
    (files / "a").write_text("12345")
    first = read(tmp_path / "cache", files, b"/srv/env")
    assert first[1] == 5
    assert read(tmp_path / "cache", files, b"/srv/env") == (first[0], 0)


def test_a_change_of_the_bytes_alone_is_noticed(files: Path, tmp_path: Path) -> None:
    (files / "a").write_text("one")
    os.utime(files / "a", ns=(OLD, OLD))
    before, _ = read(tmp_path / "cache", files)
    (files / "a").write_text("two")
    os.utime(files / "a", ns=(OLD, OLD))
    after, count = read(tmp_path / "cache", files)
    assert count == 3
    assert before["a"].digest != after["a"].digest


def test_a_file_that_changed_just_now_is_not_remembered(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.builder.files.content_cache._RACY", (3_600_000_000_000,) * 2)
    (files / "a").write_text("racy")
    read(tmp_path / "cache", files)
    assert read(tmp_path / "cache", files)[1] == 4


@pytest.mark.parametrize(
    ("ctime", "age", "racy"),
    [(OLD + 1, 0.15, False), (OLD + 1, 0.05, True), (OLD, 0.15, True), (OLD, 2.5, False)],
    ids=["short steps", "short steps, just now", "long steps, just now", "long steps"],
)
def test_a_file_is_remembered_when_the_clock_of_its_file_system_has_moved_on(
    ctime: int, age: float, racy: bool
) -> None:
    assert content_cache._is_racy(OLD, ctime, ctime + int(age * 1e9)) is racy


def test_rows_are_remembered_for_the_prefixes_that_were_searched(files: Path, tmp_path: Path) -> None:
    (files / "a").write_text("/srv/env/bin")
    assert read(tmp_path / "cache", files, b"/srv/other")[0]["a"].holds == ""
    assert read(tmp_path / "cache", files, b"/srv/env")[0]["a"].holds == "text"


@pytest.mark.parametrize("obstacle", ["a file for a folder", "a folder", "not a database"])
def test_an_unusable_cache_is_not_an_error(files: Path, tmp_path: Path, obstacle: str) -> None:
    (files / "a").write_text("1")
    database = tmp_path / "cache"
    if obstacle == "a folder":
        database.mkdir()
    elif obstacle == "not a database":
        database.write_bytes(b"x" * 4096)
    else:
        database.write_text("")
        database /= "cache"
    assert read(database, files)[1] == 1


def test_a_damaged_cache_is_replaced(files: Path, tmp_path: Path) -> None:
    (files / "a").write_text("1")
    (tmp_path / "cache").write_bytes(b"x" * 4096)
    read(tmp_path / "cache", files)
    assert read(tmp_path / "cache", files)[1] == 0


def test_many_processes_use_one_cache(files: Path, tmp_path: Path) -> None:
    for number in range(50):
        (files / str(number)).write_text(str(number))
    results: list[dict[str, FileContent]] = []
    threads = [threading.Thread(target=lambda: results.append(read(tmp_path / "cache", files)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result == results[0] for result in results)


@pytest.fixture
def many(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """More files than are looked up one by one."""
    monkeypatch.setattr("lamella.builder.files.content_cache._FEW", 3)
    for number in range(20):
        (files / f"{number}").write_text(f"{number:03}")
        os.utime(files / f"{number}", ns=(OLD, OLD))
    return files


def _edited(path: Path) -> None:
    path.write_text("new")
    os.utime(path, ns=(OLD, OLD))


def _replaced(path: Path) -> None:
    other = path.with_name("other")
    _edited(other)
    os.replace(other, path)


def _swapped(path: Path) -> None:
    path.with_name("2").rename(path.with_name("other"))
    path.rename(path.with_name("2"))
    path.with_name("other").rename(path)


@pytest.mark.parametrize("change", [_edited, _replaced, _swapped, os.unlink, lambda path: path.chmod(0o600)])
def test_a_change_among_many_files_gives_what_a_scan_without_a_cache_gives(
    many: Path, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    read(tmp_path / "cache", many)
    assert read(tmp_path / "cache", many)[1] == 0
    change(many / "1")
    expected, _ = read(tmp_path / "none", many)
    for _ in range(2):
        assert read(tmp_path / "cache", many)[0] == expected


def test_only_the_changed_file_of_many_is_read(many: Path, tmp_path: Path) -> None:
    read(tmp_path / "cache", many)
    _edited(many / "1")
    assert [read(tmp_path / "cache", many)[1] for _ in range(2)] == [3, 0]


@pytest.mark.parametrize("columns", ["identities = x'00'", "digests = x''", "others = '['", "others = NULL"])
def test_a_damaged_listing_is_replaced(many: Path, tmp_path: Path, columns: str) -> None:
    before = read(tmp_path / "cache", many)[0]
    with contextlib.closing(sqlite3.connect(tmp_path / "cache")) as database, database:
        assert database.execute(f"UPDATE listing_{VERSION} SET {columns}").rowcount == 1
    assert [read(tmp_path / "cache", many) for _ in range(2)] == [(before, 0)] * 2


def test_a_file_that_changed_just_now_is_not_listed(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lamella.builder.files.content_cache._RACY", (3_600_000_000_000,) * 2)
    assert [read(tmp_path / "cache", many)[1] for _ in range(2)] == [60, 60]


def test_an_inode_number_above_the_databases_integers_does_not_stop_a_scan(files: Path, tmp_path: Path) -> None:
    (files / "a").write_text("12345")
    seen = os.lstat(files / "a")
    above = os.stat_result((seen[0], (1 << 63) + 1, *seen[2:]))
    with contextlib.closing(ContentCache(str(tmp_path / "cache"))) as hashes, pytest.raises(EnvironmentChanged):
        hashes.contents({str(files / "a"): above}, (), Bytes())


def test_a_file_that_changes_after_the_walk_fails_the_scan(files: Path) -> None:
    path = files / "a"
    path.write_text("seen")
    seen = os.lstat(path)
    path.write_text("changed")
    with pytest.raises(EnvironmentChanged, match="a: changed while the environment was scanned; try again"):
        list(contents.read_all([(str(path), seen)], ()))
    path.unlink()
    with pytest.raises(EnvironmentChanged):
        list(contents.read_all([(str(path), seen)], ()))


def test_an_unreadable_file_is_named(files: Path) -> None:
    path = files / "folder"
    path.mkdir()
    with pytest.raises(CannotBuild, match=r"cannot read .*folder: Is a directory"):
        list(contents.read_all([(str(path), os.lstat(path))], ()))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_digests_are_right_at_every_size(files: Path, size: int) -> None:
    import hashlib

    path = files / "a"
    data = bytes(range(256)) * (size // 256 + 1)
    path.write_bytes(data[:size])
    ((_, content),) = contents.read_all([(str(path), os.lstat(path))], (b"/srv/env",))
    assert content.digest == hashlib.sha256(data[:size]).hexdigest()
