"""Read files once and in parallel: sha256, the environment's prefixes, and ELF requirements."""

from __future__ import annotations

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files import elf, prefix_pattern
from lamella.builder.files.small_file import READ

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import Holds

_CHUNK = 1 << 20
"""Bytes per read: enough to hash outside the interpreter's lock, few enough for 8 threads."""
_BATCH = 64
"""Maximum files per task, so that handing out work costs less than the work."""


class FileContent(NamedTuple):
    """Contents of one file. A NamedTuple, since a scan makes one for every file of the environment."""

    digest: str
    """sha256, 64 hex digits."""
    holds: Holds
    elf: str
    """Text of `Elf.dump`; empty for a file that is not ELF."""


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for prefixes: `begins` are cheap to find, and without any of them `whole` cannot match."""

    begins: tuple[bytes, ...]
    whole: re.Pattern[bytes] | None


def read_all(
    files: Iterable[tuple[str, os.stat_result]], prefixes: tuple[bytes, ...]
) -> Iterator[tuple[str, FileContent]]:
    """Read each of `files` (path, stat of the walk), in any order.

    Raises `EnvironmentChanged` for a file that changed since the walk, `CannotBuild` for an unreadable one.
    """
    search = _Search(prefix_pattern.shortest(prefixes), prefix_pattern.pattern(prefixes) if prefixes else None)

    def batch(some: list[tuple[str, os.stat_result]]) -> list[tuple[str, FileContent]]:
        return [(path, _read(path, seen, search)) for path, seen in some]

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), "lamella-read") as pool:
        for contents in pool.map(batch, _batches(files)):
            yield from contents


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two stats show the same file with the same bytes.

    Adding or removing a hard link changes the inode's time and no byte: uv links every environment's
    files to those of its cache. Packing hashes the bytes again.
    """
    linked = before.st_nlink != after.st_nlink
    return (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_dev,
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    ) and (linked or before.st_ctime_ns == after.st_ctime_ns)


def _batches(files: Iterable[tuple[str, os.stat_result]]) -> list[list[tuple[str, os.stat_result]]]:
    """Batches with the largest files first: one that starts last would leave the other threads idle."""
    batches: list[list[tuple[str, os.stat_result]]] = []
    room = 0
    for file in sorted(files, key=lambda file: -file[1].st_size):
        if room <= 0 or len(batches[-1]) == _BATCH:
            batches.append([])
            room = 4 * _CHUNK
        batches[-1].append(file)
        room -= file[1].st_size
    return batches


def _read(path: str, seen: os.stat_result, search: _Search) -> FileContent:
    try:
        # NONBLOCK: do not wait for a writer if a FIFO replaced the file since the walk.
        descriptor = os.open(path, READ)
    except FileNotFoundError as error:
        raise _changed(path) from error
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}; make it readable, or leave its package out"
        raise CannotBuild(message) from error
    try:
        if not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        content = _content(descriptor, seen.st_size, search)
        if content is None or not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        return content
    except OSError as error:
        raise CannotBuild(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _changed(path: str) -> EnvironmentChanged:
    return EnvironmentChanged(
        f"{path}: changed while the environment was scanned; try again when nothing writes to the environment"
    )


def _content(descriptor: int, size: int, search: _Search) -> FileContent | None:
    """Read the open file; None if it does not have `size` bytes any more."""
    if size < _CHUNK:
        data = os.read(descriptor, size + 1)
        if len(data) != size:
            return None
        found = any(begin in data for begin in search.begins) and search.whole and search.whole.search(data)
        holds: Holds = "" if not found else "binary" if b"\0" in data else "text"
        digest, magic = hashlib.sha256(data).hexdigest(), data[:4]
    else:
        digest, magic, maybe = _stream(descriptor, search.begins)
        holds = _holds(descriptor, search) if maybe else ""
    facts = elf.read_elf(descriptor) if magic == elf.MAGIC else None
    return FileContent(digest, holds, facts.dump() if facts else "")


def _stream(descriptor: int, begins: tuple[bytes, ...]) -> tuple[str, bytes, bool]:
    """sha256 and first bytes of a large file, and whether it contains any of `begins`."""
    kept = max((len(begin) for begin in begins), default=1) - 1
    buffer = bytearray(kept + _CHUNK)
    view = memoryview(buffer)
    digest, magic, maybe = hashlib.sha256(), b"", False
    while read := os.readv(descriptor, [view[kept:]]):
        end = kept + read
        digest.update(view[kept:end])
        magic = magic or bytes(buffer[kept : kept + 4])
        maybe = maybe or any(buffer.find(begin, 0, end) >= 0 for begin in begins)
        # Keep the end of this chunk in front of the next one, for a match across both.
        buffer[:kept] = buffer[end - kept : end]
    return digest.hexdigest(), magic, maybe


def _holds(descriptor: int, search: _Search) -> Holds:
    """Search a large file that contains the beginning of a prefix. Rare, so a second read is cheap."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        if not search.whole or not search.whole.search(data):
            return ""
        return "binary" if data.find(b"\0") >= 0 else "text"
