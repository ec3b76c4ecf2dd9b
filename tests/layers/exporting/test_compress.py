from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
from typing import TYPE_CHECKING

import pytest
import zstandard

from lamella.layers.exporting.compress import Compression, compressed

if TYPE_CHECKING:
    from collections.abc import Callable

READERS: dict[Compression, Callable[[bytes], bytes]] = {
    "gz": gzip.decompress,
    "bz2": bz2.decompress,
    "xz": lzma.decompress,
    "zst": lambda data: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read(),
}
# More than two blocks of each compression at level 1, of bytes that repeat across their borders.
DATA = random.Random(1).randbytes(50_000) * 120


def written(compression: Compression, threads: int, sizes: int, data: bytes = DATA, *, level: int = 1) -> bytes:
    out = io.BytesIO()
    with compressed(out, compression, level, threads) as writer:
        for start in range(0, len(data), sizes):
            writer.write(data[start : start + sizes])
    return out.getvalue()


@pytest.mark.parametrize("compression", READERS)
@pytest.mark.slow
def test_other_implementations_read_what_several_threads_wrote(compression: Compression) -> None:
    assert READERS[compression](written(compression, 3, 77_777)) == DATA


@pytest.mark.parametrize("compression", READERS)
def test_an_empty_stream_is_valid(compression: Compression) -> None:
    assert READERS[compression](written(compression, 2, 1, b"")) == b""


@pytest.mark.parametrize("compression", READERS)
@pytest.mark.slow
def test_the_bytes_are_the_same_for_any_number_of_threads_and_any_size_of_writes(compression: Compression) -> None:
    expected = written(compression, 1, 1 << 20)

    assert written(compression, 2, 1 << 20) == written(compression, 5, 4_001) == expected


def test_gzip_blocks_refer_to_the_bytes_before_them() -> None:
    # Random bytes that repeat within deflate's window: without a reference, each block would begin with 30 kB of them.
    repeated = random.Random(2).randbytes(30_000) * 280
    one = len(written("gz", 2, 1 << 20, repeated[: 2 << 20], level=4))
    four = len(written("gz", 2, 1 << 20, repeated[: 8 << 20], level=4))

    assert four < 4 * one - 60_000


def test_an_error_of_the_file_ends_the_threads_and_is_raised() -> None:
    class Full:
        def write(self, data: bytes) -> int:
            if len(data) > 100:
                raise OSError(28, "No space left on device")
            return len(data)

    def write() -> None:
        with compressed(Full(), "gz", 1, 2) as writer:
            for _ in range(8):
                writer.write(DATA)

    with pytest.raises(OSError, match="No space left"):
        write()
