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

_GZIP_BLOCK = 1 << 20
"""Bytes that one thread compresses: smaller ones cost size, larger ones memory."""
_WINDOW = 32 << 10
"""Bytes before a block that deflate may refer to (RFC 1951)."""
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""RFC 1952: no name, time 0, unknown system."""
_EMPTY_LAST_BLOCK = b"\x03\0"
_XZ_DICTIONARY = 1 << 20
"""Bytes that xz searches for matches, up to the default level. The preset's own 4 MiB gain 3 % of the size, for 3.5 times
the memory of a thread and a fifth more of its time."""
_XZ_PRESETS = (1 << 18, 1 << 20, 2 << 20, 4 << 20, 4 << 20, 8 << 20, 8 << 20, 16 << 20, 32 << 20, 64 << 20)
"""Bytes of the dictionary by level. Source: xz(1)."""
_XZ_DEFAULT_LEVEL = 4
"""The last level with `_XZ_DICTIONARY`: higher ones are for size."""
_XZ_BINARY_TREES = 4
"""The first level that searches binary trees. Source: xz(1)."""
_ZSTD_WINDOW_LOG = 23
_ZSTD_JOB = 2 << 20
"""Bytes that one thread compresses at once. Four times as many gain 1.8 % of the size, and take 60 MB more for four threads."""
_ZSTD_OVERLAP_LOG = 6
"""Each job also refers to an eighth of the window before it. Twice that gains 1.4 %, for a twelfth more time."""
_ZSTD_MOST_THREADS = 4
_ZSTD_PIECE = 1 << 20
"""Bytes that libzstd is given at once. It collects jobs itself."""
_MEMORY = 72 << 20
"""Bytes for all threads, unless the user gives their number: an export is to take less than 200 MB, of which
an environment of 50,000 files takes 120."""


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
        blocks = _Blocks(file, _bzip2_block(level), threads, lambda block, _: _bzip2(block, level))
    else:
        blocks = _Blocks(file, _xz_block(level), threads, lambda block, _: _xz(block, level))
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
        level, threads=max(1, threads), window_log=_ZSTD_WINDOW_LOG, job_size=_ZSTD_JOB, overlap_log=_ZSTD_OVERLAP_LOG
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    pieces = _Pieces(_ZSTD_PIECE, lambda piece: file.write(compressor.compress(piece)))
    yield pieces
    pieces.finish()
    file.write(compressor.flush())


class _Pieces:
    """Collects written bytes, and passes them on in pieces of one size."""

    def __init__(self, size: int, put: Callable[[memoryview], object]) -> None:
        self._size = size
        self._put = put
        self._piece = bytearray(size)
        self._end = 0

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while len(view) >= self._size - self._end:
            room = self._size - self._end
            self._piece[self._end :] = view[:room]
            self._pass_on(self._size)
            view = view[room:]
        self._piece[self._end : self._end + len(view)] = view
        self._end += len(view)

    def _pass_on(self, end: int) -> None:
        # The receiver keeps it: bytes are copied once.
        piece, self._piece, self._end = self._piece, bytearray(self._size), 0
        self._put(memoryview(piece)[:end])

    def finish(self) -> None:
        """Pass on the rest."""
        if self._end:
            self._pass_on(self._end)


class _Blocks:
    """Compresses blocks in threads, and writes them in order."""

    def __init__(self, file: Writer, size: int, threads: int, make: Callable[[memoryview, bytes], bytes]) -> None:
        self._file = file
        self._make = make
        self._pieces = _Pieces(size, self._add)
        self._before = b""
        self._any = False
        self._pool = ThreadPoolExecutor(threads, "lamella-compress") if threads > 1 else None
        self._threads = threads
        self._made: deque[Future[bytes]] = deque()
        self.seen: Callable[[memoryview], object] = lambda _: None

    def write(self, data: bytes) -> None:
        """Compress `data`."""
        self._pieces.write(data)

    def _add(self, block: memoryview) -> None:
        self._any = True
        before, self._before = self._before, bytes(block[-_WINDOW:])
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
            self._add(memoryview(b""))
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

    def update(self, data: memoryview) -> None:
        self.crc = zlib.crc32(data, self.crc)
        self.size += len(data)


def _deflated(block: memoryview, before: bytes, level: int) -> bytes:
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


def _bzip2(block: memoryview, level: int) -> bytes:
    import bz2

    return bz2.compress(block, level)


def _xz(block: memoryview, level: int) -> bytes:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": level, "dict_size": _xz_dictionary(level)}]
    return lzma.compress(block, filters=filters)


def _bzip2_block(level: int) -> int:
    return level * 100_000  # bzip2's own: a stream does not gain from more


def _xz_dictionary(level: int) -> int:
    own = _XZ_PRESETS[level]
    return min(own, _XZ_DICTIONARY) if level <= _XZ_DEFAULT_LEVEL else own


def _xz_block(level: int) -> int:
    return 3 * min(max(1 << 20, _xz_dictionary(level)), 16 << 20)


def threads_for(compression: Compression, level: int, wanted: int, processors: int) -> int:
    """Return the number of threads: `wanted`, or for 0 one for each processor, as long as there is memory."""
    if wanted or not compression:
        return wanted or 1
    most = _ZSTD_MOST_THREADS if compression == "zst" else processors
    return max(1, min(processors, most, _MEMORY // _memory_of_thread(compression, level)))


def _memory_of_thread(compression: Compression, level: int) -> int:
    """Bytes that a thread takes, with its block before and after compression."""
    if compression == "gz":
        return _GZIP_BLOCK * 3 // 2 + (512 << 10)
    if compression == "bz2":
        return _bzip2_block(level) * 19 // 2  # bzip2(1): 8 times its block, and 400 kB
    if compression == "xz":
        # xz(1): eight times the dictionary with hash chains, and 12 with binary trees.
        return _xz_dictionary(level) * (8 if level < _XZ_BINARY_TREES else 12) + _xz_block(level) * 3 // 2
    import zstandard

    chosen = zstandard.ZstdCompressionParameters.from_level(level, window_log=_ZSTD_WINDOW_LOG)
    # Up to STRATEGY_LAZY2, it has rows of hashes alone. Of its jobs, libzstd holds two and the next as they came.
    chains = 4 << chosen.chain_log if chosen.strategy > zstandard.STRATEGY_LAZY2 else 0
    return 4 * _ZSTD_JOB + (4 << chosen.hash_log) + chains + (2 << 20)
