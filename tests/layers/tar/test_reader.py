"""The reader's laws: what another writer wrote is read the same, and no bytes make it do anything but read or refuse."""

from __future__ import annotations

import io
import tarfile
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lamella.layers.errors import InvalidContent, UnsafeLayer
from lamella.layers.oci.documents import LAYER_GZIP, Digest
from lamella.layers.tar.decompress import DiffReader, decompressed
from lamella.layers.tar.reader import Archive, Entry
from support import tars
from support.tars import END

if TYPE_CHECKING:
    from lamella.layers.oci.storage import Reader

COMPONENT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=70).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) <= 255
)
PATHS = st.lists(COMPONENT, min_size=1, max_size=5).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=2000), max_size=8)


def contents(stream: Reader) -> dict[bytes, bytes]:
    archive = Archive(stream)
    return {entry.path: b"".join(bytes(piece) for piece in archive.content()) for entry in archive}


class Dripping:
    """Gives its bytes in pieces of other sizes than it is asked for."""

    def __init__(self, content: bytes, sizes: list[int]) -> None:
        self._stream = io.BytesIO(content)
        self._sizes = sizes

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(min(self._sizes.pop(), size) if self._sizes else size)


@pytest.mark.slow
@given(TREES)
def test_reads_what_tarfile_writes_as_pax(files: dict[str, bytes]) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    written.seek(0)
    assert contents(written) == {name.encode(): content for name, content in files.items()}


@pytest.mark.slow
@given(TREES, st.lists(st.integers(1, 700), max_size=50))
def test_the_pieces_that_a_stream_comes_in_change_nothing(files: dict[str, bytes], sizes: list[int]) -> None:
    tar = (
        b"".join(tars.pax({b"path": name.encode()}) + tars.file(b"x", content) for name, content in files.items()) + END
    )
    assert contents(Dripping(tar, sizes)) == contents(io.BytesIO(tar))


@pytest.mark.slow
@given(TREES)
def test_headers_and_content_together_are_the_tar(files: dict[str, bytes]) -> None:
    tar = (
        b"".join(tars.pax({b"path": name.encode()}) + tars.file(b"x", content) for name, content in files.items())
        + END
        + bytes(1024)
    )
    archive = Archive(io.BytesIO(tar))
    parts = []
    for _ in archive:
        raw = archive.raw
        content = b"".join(bytes(piece) for piece in archive.content())
        parts += [raw, content, bytes(-len(content) % tars.BLOCK)]
    assert b"".join([*parts, archive.raw]) == tar


@given(st.binary(max_size=3000))
@example(bytes(512))
@example(END)
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    read_or_refuse(content)


@pytest.mark.slow
@settings(max_examples=600)
@given(st.data())
def test_a_damaged_tar_is_read_or_refused(data: st.DataObject) -> None:
    """The fuzzer: a valid tar with some bytes changed, some taken out, and its checksums made right again."""
    tar = bytearray(
        tars.folder(b"opt/")
        + tars.file(b"opt/file", b"content")
        + tars.pax({b"path": b"opt/" + b"long" * 40, b"mtime": b"1.5"})
        + tars.file(b"short", b"x" * 600)
        + tars.symlink(b"opt/link", b"file")
        + tars.hardlink(b"opt/hard", b"opt/file")
        + END
    )
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(tar) - 1))
        tar[at] = data.draw(st.sampled_from(b"\0 /.0179=x\x80\xff5216gLK-+_") | st.integers(0, 255))
    cut = data.draw(st.integers(0, len(tar)))
    del tar[cut : cut + data.draw(st.sampled_from([0, 0, 0, 1, 512]))]
    for start in range(0, len(tar) - 511, 512):
        block = tar[start : start + 512]
        if block[257:262] == b"ustar":
            tar[start + 148 : start + 156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    read_or_refuse(bytes(tar))


def read_or_refuse(content: bytes) -> None:
    """Whatever is accepted is safe to write, and a second reading agrees."""
    try:
        archive = Archive(io.BytesIO(content))
        entries = list(archive)
    except (UnsafeLayer, InvalidContent):
        return
    assert entries == list(Archive(io.BytesIO(content)))
    for entry in entries:
        assert_safe(entry)


def assert_safe(entry: Entry) -> None:
    for path in (entry.path, entry.link) if entry.kind == "hardlink" else (entry.path,):
        parts = path.split(b"/") if path else []
        assert path or entry.kind == "folder"
        assert len(path) < 4096
        assert len(parts) <= 128
        for part in parts:
            assert 0 < len(part) < 256
            assert part not in (b".", b"..")
            assert b"\0" not in part
            assert not part.startswith(b".wh.")
    assert entry.kind == "file" or entry.size == 0
    assert 0 <= entry.mtime < 1 << 37


def test_empty_entries_are_stopped_by_their_number() -> None:
    tar = tars.header(b"e") * 1001 + END
    assert len(list(Archive(io.BytesIO(tar), max_entries=1001))) == 1001
    with pytest.raises(UnsafeLayer, match="more than 1000 entries"):
        list(Archive(io.BytesIO(tar), max_entries=1000))


@pytest.mark.slow
def test_many_entries_in_a_small_blob_are_stopped_by_what_they_expand_to() -> None:
    compress = zlib.compressobj(wbits=31)
    block = tars.header(b"e") * 1000
    blob = b"".join([*(compress.compress(block) for _ in range(100)), compress.flush()])
    content = DiffReader(decompressed(io.BytesIO(blob), LAYER_GZIP), Digest.of(b""), 8 * len(blob))
    with pytest.raises(UnsafeLayer, match="refused as a decompression bomb"):
        list(Archive(content))


@pytest.mark.parametrize(
    ("field", "seconds"),
    [(b"00000000000\0", 0), (b"22636200000 ", 0o22636200000), (b" 1234567     "[:12], 0o1234567), (bytes(12), 0)],
)
def test_octal_fields_as_writers_pad_them(field: bytes, seconds: int) -> None:
    (entry,) = Archive(io.BytesIO(tars.header(b"f", mtime=field) + END))
    assert entry.mtime == seconds


def test_a_file_beyond_8_gib_has_its_size_in_a_pax_record() -> None:
    large = 9 << 30
    archive = Archive(io.BytesIO(tars.pax({b"size": b"%d" % large}) + tars.header(b"f") + END))
    assert next(iter(archive)).size == large


def test_tar_with_half_an_end_marker_is_cut_short() -> None:
    with pytest.raises(InvalidContent, match="ends without its end marker"):
        list(Archive(io.BytesIO(tars.header(b"f") + bytes(512))))
    assert [entry.path for entry in Archive(io.BytesIO(tars.header(b"f") + bytes(1024)))] == [b"f"]


def test_bytes_in_the_padding_of_a_pax_header_are_refused() -> None:
    pax = tars.pax({b"path": b"x"})
    with pytest.raises(UnsafeLayer, match="hidden behind the end of a PAX header"):
        list(Archive(io.BytesIO(pax[:-1] + b"x" + tars.header(b"f") + END)))
