"""Cache of file contents, so that a second scan reads no file: the counterpart of git's index.

A file is identified by device, inode, size, mtime and ctime. A row serves only scans for the same
prefixes, so rows are stored by prefixes. The files of the last large scan are also kept as one value,
a listing: an unchanged environment needs no rows, and a changed one loads them in one range read. A
cache that cannot be read or written is not an error: the scan reads the files.
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
from lamella.builder.files.content_listing import Listing, identity, packed, unpacked
from lamella.builder.files.generated import generated_in
from lamella.builder.files.read import FileContent

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lamella.builder.files.content_listing import Identity
    from lamella.layers.progress.display import Progress

VERSION = 4
"""Version of the rows' meaning: raise it with any change of the search in files."""

_RACY = (100_000_000, 2_000_000_000)
"""Nanoseconds. A file changed this shortly before its read may change again with the same times: not
remembered. git calls such entries racy. The second number is for file systems that count time in long
steps, up to two seconds; the first is for others, where a step is the kernel's tick of 1 to 10 ms."""
_STEP = 1_000_000
"""Nanoseconds. A ctime of whole steps is taken for one of a file system that counts in long steps."""
_KEPT = 90
"""Days after which rows that no scan asked for are dropped."""
_FEW = 500
"""Most files that are looked up one by one; above this, one range read and a listing are faster."""
_MOST_INTEGER = 1 << 63
"""First number too large for SQLite: some FUSE file systems have such inode numbers."""
_SCANS = 4
"""Most scans that are remembered of one environment, with other options each."""
_TASK = "reading files"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS content_{VERSION}(
    searched BLOB, device INTEGER, inode INTEGER, size INTEGER, mtime INTEGER, ctime INTEGER,
    digest TEXT, holds TEXT, elf TEXT, PRIMARY KEY(searched, device, inode)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS listing_{VERSION}(
    searched BLOB PRIMARY KEY, identities BLOB, digests BLOB, others TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS scan(name TEXT PRIMARY KEY, searched BLOB, value BLOB);
CREATE TABLE IF NOT EXISTS searched(searched BLOB PRIMARY KEY, day INTEGER);
CREATE TABLE IF NOT EXISTS answer(question TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, answer TEXT);
"""


class ContentCache:
    """An open cache, or an empty one if the file cannot be opened. For one thread; call `close`."""

    def __init__(self, path: str | None = None) -> None:
        path = path or os.path.join(cache_folder(), "hashes.sqlite")
        self._database = _open(path)
        self._generated = generated_in(os.path.dirname(path))
        self._listings: dict[bytes, dict[Identity, FileContent]] = {}

    def close(self) -> None:
        """Close the database. Idempotent."""
        if self._database:
            self._database.close()
            self._database = None

    def is_settled(self, path: str, seen: os.stat_result, now: int) -> bool:
        """As the function, for the file at `path`. Of generated files no change is possible: their content names them."""
        return path.startswith(self._generated) or is_settled(seen, now)

    def knows(self, prefixes: tuple[bytes, ...]) -> bool:
        """Whether a scan for `prefixes` has read its files before."""
        searched = _searched(prefixes)
        if self._database:
            for table in (f"listing_{VERSION}", f"content_{VERSION}"):
                with contextlib.suppress(sqlite3.Error):
                    row = self._database.execute(f"SELECT 1 FROM {table} WHERE searched = ? LIMIT 1", (searched,))
                    if row.fetchone():
                        return True
        return False

    def contents(
        self, files: Mapping[str, os.stat_result], prefixes: tuple[bytes, ...], progress: Progress
    ) -> dict[str, FileContent]:
        """Return the contents of `files` (absolute path: stat of the walk); read those not in the cache.

        Raises `EnvironmentChanged` and `CannotBuild` as `read.read_all` does.
        """
        searched = _searched(prefixes)
        identities = list(map(identity, files.values()))
        listed = self._listing(searched) if len(files) > _FEW else {}
        found = list(map(listed.get, identities))
        known = {path: content for path, content in zip(files, found, strict=True) if content is not None}
        if len(known) == len(files):
            return known
        wanted = {path: each for path, each in zip(files, identities, strict=True) if path not in known}
        rows = self._rows(searched, wanted.values(), len(files))
        known |= {path: rows[each] for path, each in wanted.items() if each in rows}
        unknown = {path: files[path] for path in wanted if path not in known}
        settled = True
        if unknown:
            now = time.time_ns()
            progress.begin(_TASK, sum(seen.st_size for seen in unknown.values()), "B")
            for path, content in read.read_all(unknown.items(), prefixes):
                known[path] = content
                progress.advance(_TASK, unknown[path].st_size)
            progress.end(_TASK)
            new = {wanted[path]: known[path] for path, seen in unknown.items() if self.is_settled(path, seen, now)}
            self._remember(searched, new)
            settled = len(new) == len({wanted[path] for path in unknown})
        if settled and len(files) > _FEW:
            self._keep_listing(searched, {each: known[path] for path, each in zip(files, identities, strict=True)})
        return known

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

    def scan(self, name: str, prefixes: tuple[bytes, ...]) -> bytes | None:
        """Return the value of `keep_scan`, or None."""
        value = None
        if self._database:
            with contextlib.suppress(sqlite3.Error), self._database:
                self._drop_old(_searched(prefixes))
            with contextlib.suppress(sqlite3.Error):
                row = self._database.execute("SELECT value FROM scan WHERE name = ?", (name,)).fetchone()
                value = row[0] if row else None
        return value if isinstance(value, bytes) else None

    def keep_scan(self, name: str, prefixes: tuple[bytes, ...], value: bytes) -> None:
        """Remember `value` of a scan for `prefixes` under `name`, and the last few under other names."""
        searched = _searched(prefixes)
        others = "SELECT rowid FROM scan WHERE searched = ? ORDER BY rowid DESC LIMIT ?"
        if self._database:
            with contextlib.suppress(sqlite3.Error), self._database:
                self._database.execute("INSERT OR REPLACE INTO scan VALUES (?, ?, ?)", (name, searched, value))
                delete = f"DELETE FROM scan WHERE searched = ? AND rowid NOT IN ({others})"
                self._database.execute(delete, (searched, searched, _SCANS))

    def _listing(self, searched: bytes) -> dict[Identity, FileContent]:
        if searched not in self._listings and self._database:
            self._listings[searched] = {}
            with contextlib.suppress(sqlite3.Error), self._database:
                self._drop_old(searched)
            columns = f"SELECT identities, digests, others FROM listing_{VERSION} WHERE searched = ?"
            # Damaged: as good as absent.
            with contextlib.suppress(sqlite3.Error, ValueError, TypeError):
                row = self._database.execute(columns, (searched,)).fetchone()
                self._listings[searched] = unpacked(Listing(*row)) if row else {}
        return self._listings.get(searched, {})

    def _keep_listing(self, searched: bytes, contents: dict[Identity, FileContent]) -> None:
        self._listings[searched] = contents
        if self._database:
            with contextlib.suppress(sqlite3.Error), self._database:
                statement = f"INSERT OR REPLACE INTO listing_{VERSION} VALUES (?, ?, ?, ?)"
                self._database.execute(statement, (searched, *packed(contents)))

    def _rows(self, searched: bytes, wanted: Collection[Identity], expected: int) -> dict[Identity, FileContent]:
        if not self._database:
            return {}
        rows: dict[Identity, FileContent] = {}
        columns = "inode, device, size, mtime, ctime, digest, holds, elf"
        select = f"SELECT {columns} FROM content_{VERSION} WHERE searched = ?"
        with contextlib.suppress(sqlite3.Error):
            if len(wanted) <= _FEW:
                for each in wanted:
                    if _is_integer(each):
                        one = self._database.execute(
                            f"{select} AND device = ? AND inode = ?", (searched, each[1], each[0])
                        )
                        rows |= {row[:5]: FileContent._make(row[5:]) for row in one}
            else:
                rows = {row[:5]: FileContent._make(row[5:]) for row in self._database.execute(select, (searched,))}
            with self._database:
                # Rows of deleted files: above this number they cost more to load than to read again.
                if len(rows) > 4 * expected + 10_000:
                    self._database.execute(f"DELETE FROM content_{VERSION} WHERE searched = ?", (searched,))
                self._drop_old(searched)
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
        for table in (f"content_{VERSION}", f"listing_{VERSION}", "scan"):
            self._database.execute(f"DELETE FROM {table} WHERE searched IN ({old})", (today - _KEPT,))
        self._database.execute("DELETE FROM searched WHERE day < ?", (today - _KEPT,))

    def _remember(self, searched: bytes, contents: Mapping[Identity, FileContent]) -> None:
        if self._database:
            rows = (
                (searched, each[1], each[0], *each[2:], *content)
                for each, content in contents.items()
                if _is_integer(each)
            )
            with contextlib.suppress(sqlite3.Error), self._database:
                statement = f"INSERT OR REPLACE INTO content_{VERSION} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
                self._database.executemany(statement, rows)


def is_settled(seen: os.stat_result, now: int) -> bool:
    """Whether any change after `now`, in nanoseconds since 1970, of the file that `seen` describes changes its times."""
    return not _is_racy(seen.st_mtime_ns, seen.st_ctime_ns, now)


def _is_racy(mtime: int, ctime: int, now: int) -> bool:
    """Whether a file that is read at `now` may change again without a sign. Nanoseconds since 1970."""
    before = now - _RACY[ctime % _STEP == 0]
    return mtime >= before or ctime >= before


def _searched(prefixes: tuple[bytes, ...]) -> bytes:
    """Name of the rows of scans for `prefixes`."""
    return hashlib.sha256(b"\0".join((b"%d" % VERSION, *sorted(prefixes)))).digest()[:16]


def _is_integer(each: Identity) -> bool:
    """Whether the database can hold the numbers of an identity."""
    return each[0] < _MOST_INTEGER and each[1] < _MOST_INTEGER


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
