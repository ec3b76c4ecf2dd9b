"""Compressed streams that several threads write, with the same bytes for any number of threads."""

from __future__ import annotations

import struct
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future

Compression = Literal["", "gz", "bz2", "xz", "zst"]

_GZIP_BLOCK = 2 << 20
"""Bytes that one thread compresses: smaller ones cost size, larger ones memory."""
_WINDOW = 32 << 10
"""Bytes before a block that deflate may refer to (RFC 1951)."""
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: no name, time 0, unknown system."""
_EMPTY_LAST_BLOCK = b"\x03\0"
_ZSTD_WINDOW_LOG = 23
_ZSTD_JOB = 8 << 20
"""Bytes that one thread compresses at once. libzstd's own choice is four windows, of which each thread holds two."""
_MOST_THREADS = {"xz": 4, "zst": 4}
"""By default, for memory: each thread takes 48 MB for xz at level 4, and 33 MB for zstd."""


class Writer(Protocol):
    """A file to write bytes to."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


@contextmanager
def compressed(file: Writer, compression: Compression, level: int, threads: int) -> Iterator[Writer]:
    """Yield a writer that compresses to `file` and writes the end at exit. `file` stays open.

    gzip blocks may refer to the bytes before them, as pigz's do; bzip2 and xz blocks are streams of their
    own, which tar, bzip2, xz and Python read as one.
    """
    if not compression:
        yield file
    elif compression == "zst":
        yield from _zstd(file, level, threads)
    else:
        yield from _in_blocks(file, compression, level, threads)


def _in_blocks(file: Writer, compression: Compression, level: int, threads: int) -> Iterator[Writer]:
    if compression == "gz":
        checksum = _Checksum()
        file.write(_GZIP_HEADER)
        blocks = _Blocks(file, _GZIP_BLOCK, threads, lambda block, before: _deflated(block, before, level))
        blocks.seen = checksum.update
    elif compression == "bz2":
        # A multiple of bzip2's own blocks, so that no stream ends in a part of one.
        blocks = _Blocks(file, level * 100_000 * 4, threads, lambda block, _: _bzip2(block, level))
    else:
        size = 3 * max(1 << 20, 1 << (18 + min(level, 6)))
        blocks = _Blocks(file, size, threads, lambda block, _: _xz(block, level))
    try:
        yield blocks
        blocks.finish()
    finally:
        blocks.close()
    if compression == "gz":
        file.write(_EMPTY_LAST_BLOCK + struct.pack("<II", checksum.crc, checksum.size & 0xFFFFFFFF))


def _zstd(file: Writer, level: int, threads: int) -> Iterator[Writer]:
    import zstandard

    # At least one thread of its own: without, libzstd does not cut the input into jobs, which gives other bytes.
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, threads=max(1, threads), window_log=_ZSTD_WINDOW_LOG, job_size=_ZSTD_JOB
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    pieces = _Pieces(_ZSTD_JOB, lambda piece: file.write(compressor.compress(piece)))
    yield pieces
    pieces.finish()
    file.write(compressor.flush())


class _Pieces:
    """Collects written bytes, and passes them on in pieces of one size."""

    def __init__(self, size: int, put: Callable[[bytes], object]) -> None:
        self._size = size
        self._put = put
        self._parts: list[bytes] = []
        self._held = 0

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._held += len(data)
        if self._held >= self._size:
            self._cut()

    def _cut(self) -> None:
        data = b"".join(self._parts)
        whole = len(data) - len(data) % self._size
        for start in range(0, whole, self._size):
            self._put(data[start : start + self._size])
        self._parts = [data[whole:]]
        self._held = len(data) - whole

    def finish(self) -> None:
        """Pass on the rest."""
        if self._held:
            self._put(b"".join(self._parts))
        self._parts, self._held = [], 0


class _Blocks:
    """Compresses blocks in threads, and writes them in order."""

    def __init__(self, file: Writer, size: int, threads: int, make: Callable[[bytes, bytes], bytes]) -> None:
        self._file = file
        self._make = make
        self._pieces = _Pieces(size, self._add)
        self._before = b""
        self._any = False
        self._pool = ThreadPoolExecutor(threads, "lamella-compress") if threads > 1 else None
        self._threads = threads
        self._made: deque[Future[bytes]] = deque()
        self.seen: Callable[[bytes], object] = lambda _: None

    def write(self, data: bytes) -> None:
        """Compress `data`."""
        self._pieces.write(data)

    def _add(self, block: bytes) -> None:
        self._any = True
        before, self._before = self._before, block[-_WINDOW:]
        self.seen(block)
        if self._pool is None:
            self._file.write(self._make(block, before))
            return
        self._made.append(self._pool.submit(self._make, block, before))
        # One more than there are threads, so that none waits while this thread collects the next block.
        if len(self._made) > self._threads:
            self._file.write(self._made.popleft().result())

    def finish(self) -> None:
        """Compress the rest, and wait for all blocks. Without any byte, write an empty one: no stream at all is invalid."""
        self._pieces.finish()
        if not self._any:
            self._add(b"")
        while self._made:
            self._file.write(self._made.popleft().result())

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


class _Checksum:
    """CRC and length, for the end of a gzip member."""

    def __init__(self) -> None:
        self.crc = 0
        self.size = 0

    def update(self, data: bytes) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)


def _deflated(block: bytes, before: bytes, level: int) -> bytes:
    deflate = _deflate()
    if before:
        compressor = deflate.compressobj(level, zlib.DEFLATED, -15, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, before)
    else:
        compressor = deflate.compressobj(level, zlib.DEFLATED, -15)
    return bytes(compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH))


def _deflate() -> Any:
    """Return zlib-ng, which takes a third less time than zlib for the same size, or zlib if there is no wheel of it."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


def _bzip2(block: bytes, level: int) -> bytes:
    import bz2

    return bz2.compress(block, level)


def _xz(block: bytes, level: int) -> bytes:
    import lzma

    return lzma.compress(block, preset=level)


def threads_for(compression: Compression, wanted: int, processors: int) -> int:
    """Return the number of threads: `wanted`, or for 0 one for each processor."""
    if wanted:
        return wanted
    return min(processors, _MOST_THREADS.get(compression, processors))
