from __future__ import annotations

import hashlib
import io
import random
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import zstandard

from lamella.builder.content.blob import FRAME, BlobWriter, Compressors, Processors
from lamella.layers.oci.documents import LAYER_ZSTD
from lamella.layers.tar.decompress import decompressed
from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path

    from lamella.builder.content.blob import Compression, LayerBlob

END = 1024
"""Bytes that end a tar."""


def blob_of(
    content: bytes, *, compression: Compression = "zstd", processors: Processors | None = None, piece: int = 1 << 20
) -> tuple[LayerBlob, bytes]:
    out = io.BytesIO()
    blob = BlobWriter(out, compression, processors)
    for start in range(0, len(content), piece):
        blob.write(content[start : start + piece])
    return blob.finish(), out.getvalue()


def frames(blob: bytes) -> list[int]:
    """Bytes of content in each frame, as its header states it."""
    sizes = []
    while blob:
        sizes.append(zstandard.frame_content_size(blob))
        frame = zstandard.ZstdDecompressor().decompressobj()
        assert len(frame.decompress(blob)) == sizes[-1]
        blob = frame.unused_data
    return sizes


@pytest.mark.parametrize("size", [0, FRAME - END - 1, FRAME - END, FRAME - END + 1, FRAME, 2 * FRAME - END])
def test_each_4_mib_of_a_tar_are_a_frame(size: int) -> None:
    made, blob = blob_of(random.Random(1).randbytes(size))
    whole, rest = divmod(size + END, FRAME)
    assert frames(blob) == [FRAME] * whole + [rest] * (rest > 0)
    assert made.digest.hex == hashlib.sha256(blob).hexdigest()
    assert made.size == len(blob)


@pytest.mark.slow
def test_frames_are_one_tar_to_our_own_reader_and_to_zstd(tmp_path: Path) -> None:
    content = random.Random(2).randbytes(2 * FRAME + 5)
    made, blob = blob_of(content)
    (tmp_path / "blob").write_bytes(blob)
    theirs = subprocess.run([need("zstd"), "-dc", tmp_path / "blob"], check=True, capture_output=True).stdout
    reader = decompressed(io.BytesIO(blob), LAYER_ZSTD)
    assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == theirs == content + bytes(END)
    assert hashlib.sha256(theirs).hexdigest() == made.diff_id.hex


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.slow
def test_neither_the_pieces_nor_the_processors_show(compression: Compression) -> None:
    content = b"".join(bytes([number % 251]) * 997 for number in range(3 * FRAME // 997))
    alone = blob_of(content, compression=compression)
    with closing(Processors(3)) as processors:
        assert blob_of(content, compression=compression, processors=processors) == alone
    with closing(Processors(1)) as processors, processors.occupied():
        assert blob_of(content, compression=compression, processors=processors) == alone
    assert blob_of(content, compression=compression, piece=FRAME + 3) == alone
    assert blob_of(content, compression=compression, piece=99_991) == alone


def test_only_idle_processors_take_work() -> None:
    with closing(Processors(2)) as processors:
        with processors.occupied(), processors.occupied():
            assert processors.offer(bytes) is None
        with processors.occupied():
            taken = processors.offer(bytes)
            assert taken
            assert taken.result() == b""
        # Idle again once the work is done.
        with processors.occupied(), processors.occupied():
            pass


@pytest.mark.parametrize(("content", "says"), [(b"12345", True), (b"1234", False), (b"123456", False), (b"", False)])
def test_a_file_of_another_size_is_not_copied(content: bytes, *, says: bool) -> None:
    file = io.BytesIO(content)

    def read_into(buffers: object) -> int:
        assert isinstance(buffers, list)
        return sum(file.readinto(buffer) for buffer in buffers)

    blob = BlobWriter(io.BytesIO(), "zstd")
    assert (blob.copy_file(read_into, 5) == hashlib.sha256(b"12345").hexdigest()) is says


def test_buffers_serve_layer_after_layer() -> None:
    content = random.Random(3).randbytes(3 * FRAME)
    with closing(Processors(2)) as processors:
        made = [blob_of(content, processors=processors) for _ in range(3)]
        # A buffer for each frame under way on two processors, and the writer's own.
        assert 1 <= processors.compressors._frames.qsize() <= 3
        kept = [processors.compressors.frame() for _ in range(20)]
    assert made == [blob_of(content)] * 3
    with closing(Processors(1)) as processors, processors.occupied():
        assert {blob_of(b"small", processors=processors)[1] for _ in range(3)} == {blob_of(b"small")[1]}
        assert processors.compressors._frames.qsize() == 1
    compressors = Compressors()
    frame = compressors.frame()
    compressors.give_back(frame)
    assert compressors.frame() is frame
    assert len(set(map(id, kept))) == 20, "no buffer is given back twice"
