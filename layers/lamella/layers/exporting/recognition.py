"""Recognise archives and images that an export wrote, by the bytes at their start."""

from __future__ import annotations

import bz2
import lzma
import os
import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

from lamella.layers.exporting.target import form_of_name
from lamella.layers.hardening.regular_file import open_regular
from lamella.layers.relocation.move import PREFIX_FILE
from lamella.layers.tar.headers import MTIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.exporting.target import Format

_HEADER = 512
"""Bytes of a tar's first header, which names its first member."""
_MOST = 2 << 20
"""Bytes that are read until the first header is there: bzip2 decompresses whole blocks of 900,000 bytes."""
_PIECE = 64 << 10
_MEMORY = 128 << 20
"""Bytes that xz may take; its level 9 takes 65 MiB."""


def is_export(path: str) -> bool:
    """Whether `path` is an archive, a parcel or an image that an export wrote, under the suffix of its form.

    An archive's first member is the file of its prefix; a squashfs image has the time of every export.
    """
    form = form_of_name(os.path.basename(path))
    if form is None:
        return False
    try:
        with open_regular(path) as file:
            return _READERS[form](file)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
        return False


def _tar(file: BinaryIO) -> bool:
    return _is_first(file.read(_HEADER))


def _gzip(file: BinaryIO) -> bool:
    decompressor = zlib.decompressobj(31)
    return _is_first(_head(file, lambda data: decompressor.decompress(data, _HEADER)))


def _bzip2(file: BinaryIO) -> bool:
    decompressor = bz2.BZ2Decompressor()
    return _is_first(_head(file, lambda data: decompressor.decompress(data, _HEADER)))


def _xz(file: BinaryIO) -> bool:
    decompressor = lzma.LZMADecompressor(memlimit=_MEMORY)
    return _is_first(_head(file, lambda data: decompressor.decompress(data, _HEADER)))


def _zstd(file: BinaryIO) -> bool:
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=_MEMORY).stream_reader(file) as reader:
            return _is_first(reader.read(_HEADER))
    except zstandard.ZstdError:
        return False


def _zip(file: BinaryIO) -> bool:
    # APPNOTE.TXT, 4.3.7: the first local header, with the length of its file's name at 26.
    head = file.read(_HEADER)
    if head[:4] != b"PK\3\4" or len(head) < 30:
        return False
    (length,) = struct.unpack_from("<H", head, 26)
    return _names_prefix(head[30 : 30 + length])


def _squashfs(file: BinaryIO) -> bool:
    # The superblock's modification time, at 8.
    head = file.read(12)
    return head[:4] == b"hsqs" and len(head) == 12 and struct.unpack_from("<I", head, 8)[0] == MTIME


def _head(file: BinaryIO, decompress: Callable[[bytes], bytes]) -> bytes:
    """Return the first header's bytes of a compressed tar, or fewer."""
    found, left = b"", _MOST
    while len(found) < _HEADER and left > 0 and (piece := file.read(min(left, _PIECE))):
        left -= len(piece)
        found += decompress(piece)
    return found[:_HEADER]


def _is_first(header: bytes) -> bool:
    """Whether a tar's first header names the file of an export's prefix."""
    # POSIX.1-1988 ustar: the name at 0, its folders, if they do not fit, at 345.
    name, above = header[:100].rstrip(b"\0"), header[345:500].rstrip(b"\0")
    return len(header) == _HEADER and _names_prefix(above + b"/" + name if above else name)


def _names_prefix(name: bytes) -> bool:
    return f"/{PREFIX_FILE}".encode() == b"/" + name or name.endswith(f"/{PREFIX_FILE}".encode())


_READERS: dict[Format, Callable[[BinaryIO], bool]] = {
    "tar": _tar,
    "tar.gz": _gzip,
    "parcel": _gzip,
    "tar.bz2": _bzip2,
    "tar.xz": _xz,
    "tar.zst": _zstd,
    "zip": _zip,
    "squashfs": _squashfs,
}
