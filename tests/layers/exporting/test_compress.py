from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import zstandard

from lamella.layers.exporting.compress import Compression, compressed, threads_for

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
    one = len(written("gz", 2, 1 << 20, repeated[: 1 << 20], level=4))
    four = len(written("gz", 2, 1 << 20, repeated[: 4 << 20], level=4))

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


@pytest.mark.parametrize(
    ("compression", "level", "processors", "expected"),
    [
        ("", 0, 16, 1),
        ("gz", 4, 2, 2),
        ("gz", 4, 16, 16),
        ("gz", 4, 256, 36),
        ("bz2", 9, 16, 8),
        ("bz2", 1, 16, 16),
        ("xz", 4, 16, 4),
        ("xz", 9, 16, 1),
        ("zst", 8, 2, 2),
        ("zst", 8, 16, 4),
        ("zst", 19, 16, 1),
    ],
)
def test_threads_share_72_mb_unless_their_number_is_given(
    compression: Compression, level: int, processors: int, expected: int
) -> None:
    assert threads_for(compression, level, 0, processors) == expected
    assert threads_for(compression, level, 7, processors) == 7


@pytest.mark.parametrize(
    ("compression", "level", "most"), [("zst", 8, 70), ("xz", 4, 90), ("bz2", 9, 90), ("gz", 4, 60)]
)
@pytest.mark.slow
def test_the_default_threads_of_16_processors_take_less_than_their_part_of_200_mb(
    compression: Compression, level: int, most: int
) -> None:
    """Bytes that hardly compress, so that what waits to be written counts, too."""
    program = f"""
import random
from lamella.cli.memory import return_large_blocks
from lamella.layers.exporting.compress import compressed, threads_for

class Nowhere:
    def write(self, data): pass

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

return_large_blocks()
data = random.Random(1).randbytes(1 << 20)
before = peak()
with compressed(Nowhere(), {compression!r}, {level}, threads_for({compression!r}, {level}, 0, 16)) as writer:
    for at in range(64):
        writer.write(data[at:] + data[:at])
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True)
    assert int(done.stdout) < most << 10
