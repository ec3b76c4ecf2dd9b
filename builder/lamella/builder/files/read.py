"""What files hold, read once and in parallel: their sha256, the environment's prefixes, and what ELF files need."""

from __future__ import annotations

import hashlib
import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files import elf, prefix_pattern

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import Holds

_CHUNK = 1 << 20
"""Bytes read at once: enough that hashing runs outside the interpreter's lock, little enough for 8 threads."""
_BATCH = 64
"""Files per task, so that handing out work costs less than the work."""


class FileContent(NamedTuple):
    """What one file holds. A NamedTuple, since a scan makes one for every file of the environment."""

    digest: str
    """sha256, 64 hex digits."""
    holds: Holds
    elf: str
    """`Elf.dump`, empty for a file that is no ELF file."""


@dataclass(frozen=True, slots=True)
class _Search:
    """How to look for prefixes: `begins` are cheap to find, and where none is, `whole` does not match."""

    begins: tuple[bytes, ...]
    whole: re.Pattern[bytes] | None


def read_all(
    files: Iterable[tuple[str, os.stat_result]], prefixes: tuple[bytes, ...]
) -> Iterator[tuple[str, FileContent]]:
    """The content of each of `files` (path, what the walk saw of it), in no order.

    `EnvironmentChanged` for a file that is not what the walk saw, `CannotBuild` for one that can't be read.
    """
    search = _Search(prefix_pattern.shortest(prefixes), prefix_pattern.pattern(prefixes) if prefixes else None)

    def batch(some: list[tuple[str, os.stat_result]]) -> list[tuple[str, FileContent]]:
        return [(path, _read(path, seen, search)) for path, seen in some]

    with ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)), "lamella-read") as pool:
        for contents in pool.map(batch, _batches(files)):
            yield from contents


def same(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether two looks saw the same file with the same bytes.

    A link that another environment made or removed meanwhile changes the time of the inode and no byte: uv links every
    environment's files to those of its cache. What is packed is hashed again anyway.
    """
    linked = before.st_nlink != after.st_nlink
    return (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns) == (
        after.st_dev,
        after.st_ino,
        after.st_size,
        after.st_mtime_ns,
    ) and (linked or before.st_ctime_ns == after.st_ctime_ns)


def _batches(files: Iterable[tuple[str, os.stat_result]]) -> list[list[tuple[str, os.stat_result]]]:
    """The largest files first: one that starts last would leave all threads but its own idle."""
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
        # NONBLOCK: should a FIFO have taken the file's place since the walk, nobody waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise _changed(path) from error
    except OSError as error:
        raise CannotBuild(f"can't read {path}: {error.strerror}; make it readable, or leave its package out") from error
    try:
        if not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        content = _content(descriptor, seen.st_size, search)
        if content is None or not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        return content
    except OSError as error:
        raise CannotBuild(f"can't read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _changed(path: str) -> EnvironmentChanged:
    return EnvironmentChanged(
        f"{path} changed while the environment was scanned: try again when nothing writes to the environment"
    )


def _content(descriptor: int, size: int, search: _Search) -> FileContent | None:
    """The open file's content; None where it has not `size` bytes after all."""
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
    """A large file's sha256 and first bytes, and whether any of `begins` is in it."""
    kept = max((len(begin) for begin in begins), default=1) - 1
    buffer = bytearray(kept + _CHUNK)
    view = memoryview(buffer)
    digest, magic, maybe = hashlib.sha256(), b"", False
    while read := os.readv(descriptor, [view[kept:]]):
        end = kept + read
        digest.update(view[kept:end])
        magic = magic or bytes(buffer[kept : kept + 4])
        maybe = maybe or any(buffer.find(begin, 0, end) >= 0 for begin in begins)
        # The end of this chunk stays in front of the next one, for a match that lies across both.
        buffer[:kept] = buffer[end - kept : end]
    return digest.hexdigest(), magic, maybe


def _holds(descriptor: int, search: _Search) -> Holds:
    """What a large file holds in which the beginning of a prefix was seen: few are, so that a second look is cheap."""
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        if not search.whole or not search.whole.search(data):
            return ""
        return "binary" if data.find(b"\0") >= 0 else "text"
