"""Cache of file contents, so that a second scan reads no file: the counterpart of git's index.

A file is identified by device, inode, size, mtime and ctime. A row serves only scans for the same
prefixes, so rows are stored by prefixes, and a scan loads its rows in one range read. A cache that
cannot be read or written is not an error: the scan reads the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING

from lamella.builder.cache_folder import cache_folder
from lamella.builder.files import read
from lamella.builder.files.read import FileContent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.environment import Holds
    from lamella.layers.progress.display import Progress

    _Row = tuple[int, int, int, int, int, str, Holds, str]

VERSION = 4
"""Version of the rows' meaning: raise it with any change of the search in files."""

_RACY = 2_000_000_000
"""Nanoseconds. A file changed this shortly before its read may change again with the same times, since
file systems count time in steps of up to two seconds: not remembered. git calls such entries racy."""
_KEPT = 90
"""Days after which rows that no scan asked for are dropped."""
_TASK = "reading files"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS content_{VERSION}(
    searched BLOB, device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,
    digest TEXT, holds TEXT, elf TEXT, PRIMARY KEY(searched, device, inode)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS searched(searched BLOB PRIMARY KEY, day INTEGER);
CREATE TABLE IF NOT EXISTS answer(question TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, answer TEXT);
"""


class ContentCache:
    """An open cache, or an empty one if the file cannot be opened. For one thread; call `close`."""

    def __init__(self, path: str | None = None) -> None:
        self._database = _open(path or os.path.join(cache_folder(), "hashes.sqlite"))
        self._loaded: dict[bytes, dict[tuple[int, int], _Row]] = {}

    def close(self) -> None:
        """Close the database. Idempotent."""
        if self._database:
            self._database.close()
            self._database = None

    def contents(
        self, files: Mapping[str, os.stat_result], prefixes: tuple[bytes, ...], progress: Progress
    ) -> dict[str, FileContent]:
        """Return the contents of `files` (absolute path: stat of the walk); read those not in the cache.

        Raises `EnvironmentChanged` and `CannotBuild` as `read.read_all` does.
        """
        searched = hashlib.sha256(b"\0".join((b"%d" % VERSION, *sorted(prefixes)))).digest()[:16]
        rows = self._rows(searched, len(files))
        found: dict[str, FileContent] = {}
        unknown: dict[str, os.stat_result] = {}
        for path, seen in files.items():
            row = rows.get((seen.st_ino, seen.st_dev))
            if row is not None and row[2:5] == (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns):
                found[path] = FileContent._make(row[5:])
            else:
                unknown[path] = seen
        if unknown:
            now = time.time_ns()
            progress.begin(_TASK, sum(seen.st_size for seen in unknown.values()), "B")
            for path, content in read.read_all(unknown.items(), prefixes):
                found[path] = content
                progress.advance(_TASK, unknown[path].st_size)
            progress.end(_TASK)
            # Changed less than _RACY before its read: may change again without a sign.
            settled = now - _RACY
            self._remember(
                [
                    (
                        *(searched, seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns),
                        *(found[path].digest, found[path].holds, found[path].elf),
                    )
                    for path, seen in unknown.items()
                    if seen.st_mtime_ns < settled and seen.st_ctime_ns < settled
                ],
            )
        return found

    def answer(self, question: str, subject: os.stat_result) -> str | None:
        """Answer remembered for the same question, or None if `subject` changed since."""
        if self._database:
            with contextlib.suppress(sqlite3.Error):
                row = self._database.execute("SELECT * FROM answer WHERE question = ?", (question,)).fetchone()
                if row and row[1:4] == (subject.st_size, subject.st_mtime_ns, subject.st_ctime_ns):
                    return str(row[4])
        return None

    def remember_answer(self, question: str, subject: os.stat_result, answer: str) -> None:
        """Keep `answer` until the file that `subject` describes changes."""
        row = (question, subject.st_size, subject.st_mtime_ns, subject.st_ctime_ns, answer)
        if self._database:
            with contextlib.suppress(sqlite3.Error), self._database:
                self._database.execute("INSERT OR REPLACE INTO answer VALUES (?, ?, ?, ?, ?)", row)

    def _rows(self, searched: bytes, expected: int) -> dict[tuple[int, int], _Row]:
        if searched in self._loaded or not self._database:
            return self._loaded.get(searched, {})
        rows: dict[tuple[int, int], _Row] = {}
        with contextlib.suppress(sqlite3.Error):
            columns = "inode, device, size, mtime, ctime, digest, holds, elf"
            select = f"SELECT {columns} FROM content_{VERSION} WHERE searched = ?"
            rows = {row[:2]: row for row in self._database.execute(select, (searched,))}
            with self._database:
                # Rows of deleted files: above this number they cost more to load than to read again.
                if len(rows) > 4 * expected + 10_000:
                    self._database.execute(f"DELETE FROM content_{VERSION} WHERE searched = ?", (searched,))
                self._drop_old(searched)
        self._loaded[searched] = rows
        return rows

    def _drop_old(self, searched: bytes) -> None:
        assert self._database
        today = int(time.time() // 86400)
        if self._database.execute(
            "SELECT 1 FROM searched WHERE searched = ? AND day = ?", (searched, today)
        ).fetchone():
            return  # at most one write a day, so that a scan without changes writes nothing
        self._database.execute("INSERT OR REPLACE INTO searched VALUES (?, ?)", (searched, today))
        old = "SELECT searched FROM searched WHERE day < ?"
        self._database.execute(f"DELETE FROM content_{VERSION} WHERE searched IN ({old})", (today - _KEPT,))
        self._database.execute("DELETE FROM searched WHERE day < ?", (today - _KEPT,))

    def _remember(self, rows: list[tuple[object, ...]]) -> None:
        if self._database:
            with contextlib.suppress(sqlite3.Error), self._database:
                statement = f"INSERT OR REPLACE INTO content_{VERSION} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                self._database.executemany(statement, rows)


def _open(path: str) -> sqlite3.Connection | None:
    for _ in range(2):
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            database = sqlite3.connect(path, timeout=5)
        except (OSError, sqlite3.Error):
            return None
        try:
            database.execute("PRAGMA journal_mode = WAL")
            # A row lost in a power failure is read again: syncing is not worth the wait.
            database.execute("PRAGMA synchronous = OFF")
            database.executescript(_SCHEMA)
        except sqlite3.OperationalError:  # read-only, full, locked for too long, or on a file system without WAL
            database.close()
            return None
        except sqlite3.DatabaseError:  # not a database, or damaged: begin a new cache
            database.close()
            with contextlib.suppress(OSError):
                os.unlink(path)
        else:
            return database
    return None
