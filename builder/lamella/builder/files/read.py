"""Read files once: sha256, the environment's prefixes, and ELF requirements.

Large files are read by several threads, beside the small ones, which one thread reads: they take longer
in the interpreter, where its lock admits one thread, than in the hash.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files import elf, prefix_pattern
from lamella.builder.files.small_file import READ

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.builder.environment import Holds

    _Found = tuple[str, os.stat_result]
    _Contents = list[tuple[str, "FileContent"]]

_CHUNK = 1 << 20
"""Bytes per read: enough to hash outside the interpreter's lock, few enough for 8 threads."""
_LARGE = 128 << 10
"""Size of a file, in bytes, that takes longer to hash than to open."""
_BATCH = 64
"""Small files per task, so that handing out work costs less than the work."""
_MOST_THREADS = 8
_PATIENCE = 0.5
"""Seconds of waiting after which small files are read by several threads: on a cold or a remote disk."""


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


def read_all(files: Iterable[_Found], prefixes: tuple[bytes, ...]) -> Iterator[tuple[str, FileContent]]:
    """Read each of `files` (path, stat of the walk), in any order.

    Raises `EnvironmentChanged` for a file that changed since the walk, `CannotBuild` for an unreadable one.
    """
    search = _Search(prefix_pattern.shortest(prefixes), prefix_pattern.pattern(prefixes) if prefixes else None)

    def read(batch: Sequence[_Found]) -> _Contents:
        return [(path, _read(path, seen, search)) for path, seen in batch]

    large: list[_Found] = []
    small: list[_Found] = []
    for file in files:
        (large if file[1].st_size >= _LARGE else small).append(file)
    with _threads((os.cpu_count() or 1) - 1) as others:
        pending = deque(others.submit(read, batch) for batch in _largest_first(large))
        for contents in _small(read, small):
            yield from contents
            while pending and pending[0].done():
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _small(read: Callable[[Sequence[_Found]], _Contents], files: Sequence[_Found]) -> Iterator[_Contents]:
    """Read small files in this thread, or in several once it has waited for a disk for longer than it worked."""
    batches = deque(files[start : start + _BATCH] for start in range(0, len(files), _BATCH))
    waited = worked = 0.0
    while batches and waited < max(_PATIENCE, 2 * worked):
        clock, processor = time.perf_counter(), time.thread_time()
        contents = read(batches.popleft())
        processor = time.thread_time() - processor
        worked += processor
        waited += time.perf_counter() - clock - processor
        yield contents
    if batches:
        with _threads(_MOST_THREADS) as pool:
            yield from pool.map(read, batches)


def _threads(number: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(_MOST_THREADS, max(1, number)), "lamella-read")


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


def _largest_first(files: Iterable[_Found]) -> list[list[_Found]]:
    """Batches of about the same number of bytes. One of the largest that started last would be waited for alone."""
    batches: list[list[_Found]] = []
    room = 0
    for file in sorted(files, key=lambda file: -file[1].st_size):
        if room <= 0:
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
        # What replaced a large file may have no end. Of a small one, the look after its bytes shows as much.
        if seen.st_size >= _LARGE and not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        content = _content(descriptor, seen.st_size, search)
        if content is None or not same(seen, os.fstat(descriptor)):
            raise _changed(path)
        return content
    except OSError as error:
        # A folder, or a FIFO with a writer, in the place of a small file.
        if not same(seen, os.fstat(descriptor)):
            raise _changed(path) from error
        raise CannotBuild(f"cannot read {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _changed(path: str) -> EnvironmentChanged:
    return EnvironmentChanged(
        f"{path}: changed while the environment was scanned; try again when nothing writes to the environment"
    )


def _content(descriptor: int, size: int, search: _Search) -> FileContent | None:
    """Read the open file; None if it does not have `size` bytes any more."""
    if size < _LARGE:
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


_of_thread = threading.local()


def _buffer(size: int) -> bytearray:
    """A buffer that the thread uses for file after file: the pages of a new one take longer than a file of their size."""
    buffer: bytearray | None = getattr(_of_thread, "buffer", None)
    if buffer is None or len(buffer) != size:
        buffer = _of_thread.buffer = bytearray(size)
    return buffer


def _stream(descriptor: int, begins: tuple[bytes, ...]) -> tuple[str, bytes, bool]:
    """sha256 and first bytes of a large file, and whether it contains any of `begins`."""
    kept = max((len(begin) for begin in begins), default=1) - 1
    buffer = _buffer(kept + _CHUNK)
    buffer[:kept] = bytes(kept)
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
