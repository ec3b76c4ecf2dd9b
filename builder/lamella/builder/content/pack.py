"""Write one layer: tar, compression and both digests in one pass, in bounded memory."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

from lamella.builder.content.entry import Entry, read_entry
from lamella.builder.errors import CannotBuild
from lamella.layers.oci.documents import LAYER_GZIP, LAYER_ZSTD, Digest
from lamella.layers.tar import headers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.builder.content.bytecode import Compiler, Module

Compression = Literal["zstd", "gzip"]

LEVEL = {"zstd": 3, "gzip": 6}
MEDIA_TYPE = {"zstd": LAYER_ZSTD, "gzip": LAYER_GZIP}

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Packed:
    """Blob of a layer."""

    digest: Digest
    size: int
    """Bytes of the blob."""
    diff_id: Digest
    unpacked: int
    """Bytes of the files in it."""


def compression_name(compression: Compression) -> str:
    """Name of the compression in a layer key, with its level, since another level gives other bytes."""
    return f"{compression}:{LEVEL[compression]}"


def pack(
    entries: Sequence[Entry],
    wanted: Sequence[Module],
    compiler: Compiler | None,
    out: BinaryIO,
    compression: Compression,
) -> Packed:
    """Write the layer of `entries` and of the byte code of `wanted` to `out`."""
    blob = Blob(out, compression)
    compiled = compiler.compile(wanted) if compiler and wanted else iter(())
    items: list[tuple[bytes, Entry | None]] = [(_encoded(entry.path), entry) for entry in entries]
    items += [(_encoded(module.path), None) for module in wanted]
    items.sort(key=lambda item: item[0])
    folders: set[bytes] = set()
    for name, entry in items:
        if entry is None:
            made = next(compiled)
            if made is None:
                continue
            _write_folders(blob, name, folders)
            blob.write(headers.file_header(name, 0o644, len(made)))
            blob.write_file([made], len(made))
            continue
        _write_folders(blob, name, folders)
        if entry.target is not None:
            blob.write(headers.symlink_header(name, entry.target.encode("utf-8", "surrogateescape")))
        else:
            blob.write(headers.file_header(name, entry.mode, entry.size))
            blob.write_file(read_entry(entry), entry.size)
    return blob.finish()


def _write_folders(blob: Blob, name: bytes, written: set[bytes]) -> None:
    """Write the missing folders above `name`: engines create missing folders with modes of their own."""
    at = name.rfind(b"/")
    if at < 0 or name[: at + 1] in written:
        return
    at = name.find(b"/") + 1
    while at:
        folder = name[:at]
        if folder not in written:
            written.add(folder)
            blob.write(headers.folder_header(folder))
        at = name.find(b"/", at) + 1


def _encoded(path: str) -> bytes:
    """Encode a path for a tar. Raises `CannotBuild` if it is longer than any system allows."""
    name = path.encode("utf-8", "surrogateescape")
    if len(name) > 4095 or b"\0" in name:
        raise CannotBuild(f"{path[:100]}…: a path of {len(name)} bytes; at most 4095 are possible; shorten it")
    return name


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class Blob:
    """Compresses a tar's bytes to `out`."""

    def __init__(self, out: BinaryIO, compression: Compression) -> None:
        self._out = out
        self._compressor = _compressor(compression)
        self._tar = hashlib.sha256()
        self._blob = hashlib.sha256()
        self._parts: list[bytes] = []
        self._held = 0
        self._size = 0
        self._unpacked = 0

    def write(self, data: bytes) -> None:
        """Write headers and padding."""
        self._parts.append(data)
        self._held += len(data)
        if self._held >= _PIECE:
            self._compress()

    def write_file(self, chunks: Iterable[bytes], size: int) -> None:
        """Write a file's bytes, and fill its last block."""
        for chunk in chunks:
            self.write(chunk)
        self.write(headers.padding(size))
        self._unpacked += size

    def _compress(self, *, rest: bool = False) -> None:
        data = b"".join(self._parts)
        # Pieces of one size, so that the output does not depend on the sizes of the reads.
        whole = len(data) if rest else len(data) - len(data) % _PIECE
        for start in range(0, whole, _PIECE):
            piece = data[start : min(start + _PIECE, whole)]
            self._tar.update(piece)
            self._put(self._compressor.compress(piece))
        self._parts = [data[whole:]]
        self._held = len(data) - whole

    def _put(self, data: bytes) -> None:
        self._blob.update(data)
        self._size += len(data)
        self._out.write(data)

    def finish(self) -> Packed:
        """Write the end of the tar and of the blob. The caller closes `out`."""
        self.write(headers.END)
        self._compress(rest=True)
        self._put(self._compressor.flush())
        tar, blob = Digest("sha256", self._tar.hexdigest()), Digest("sha256", self._blob.hexdigest())
        return Packed(blob, self._size, tar, self._unpacked)


def _compressor(compression: Compression) -> _Compressor:
    if compression == "gzip":
        # zlib's own gzip header has no name, and the time 0.
        return zlib.compressobj(LEVEL["gzip"], zlib.DEFLATED, 31)
    import zstandard

    # threads=0: with 1 or more, libzstd cuts the input into jobs, which gives other bytes. No content size: the header is
    # written before byte code is compiled. No checksum: the digest is one.
    compressor = zstandard.ZstdCompressor(
        level=LEVEL["zstd"], threads=0, write_checksum=False, write_content_size=False, write_dict_id=False
    )
    return compressor.compressobj()
