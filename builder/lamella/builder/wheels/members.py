"""Read the members of a wheel: each once, and checked against RECORD as it is read.

Small members are read in one piece: a stream of `zipfile` takes several times as long as their inflation. Sources:
APPNOTE.TXT, "Local file header"; PyPA specifications, "Recording installed projects" for hashes.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import struct
import zipfile
import zlib
from base64 import urlsafe_b64decode
from io import BytesIO, StringIO
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WHOLE = 4 << 20
"""Most bytes of a member that is read in one piece, by each thread that unpacks."""
_BUFFER = 1 << 18
_HEADER = struct.Struct("<4s22xHH")
"""Local file header: its signature, and the lengths of the name and of the extra field behind it."""
_SIGNATURE = b"PK\3\4"
_ENCRYPTED = 1
_WEAK = frozenset({"md5", "sha1"})


class Member:
    """The content of a member, hashed as it is read."""

    def __init__(self, stream: IO[bytes], algorithm: str) -> None:
        self._stream = stream
        self._sha256 = hashlib.sha256()
        self._stated = self._sha256 if algorithm == "sha256" else hashlib.new(algorithm)
        self.was_read = False

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes, or all that are left; nothing at the end."""
        block = self._stream.read(size)
        self._sha256.update(block)
        if self._stated is not self._sha256:
            self._stated.update(block)
        self.was_read = True
        return block

    def sha256(self) -> bytes:
        """Return the sha256 of the bytes that were read."""
        return self._sha256.digest()

    def stated(self) -> bytes:
        """Return the digest of the bytes that were read, by the algorithm that RECORD names."""
        return self._stated.digest()


def members(archive: zipfile.ZipFile, record: str) -> Iterator[tuple[zipfile.ZipInfo, Member]]:
    """Yield each file of `archive` in its order, except `record`, the path of RECORD. Read one before the next.

    A member that is not read is not checked. Raises `ValueError` for one without a hash in RECORD or with another content,
    and what `zipfile` and `zlib` raise.
    """
    assert archive.filename
    hashes = dict(_hashes(archive.read(record).decode()))
    # A signature of RECORD cannot be in it.
    unsigned = {record, f"{record}.jws", f"{record}.p7s"}
    with open(archive.filename, "rb", buffering=_BUFFER) as file:
        for item in archive.infolist():
            if item.is_dir() or item.filename == record:
                continue
            if item.filename not in hashes and item.filename not in unsigned:
                raise ValueError(f"No hash found for file {item.filename!r}")
            algorithm, expected = hashes.get(item.filename, ("sha256", b""))
            whole = expected and _is_small(item)
            with BytesIO(_content(item, file)) if whole else contextlib.closing(archive.open(item)) as stream:
                member = Member(stream, algorithm)
                yield item, member
                if member.was_read and expected and member.stated() != expected:
                    raise ValueError(f"Hash mismatch for file {item.filename!r}")


def _hashes(text: str) -> Iterator[tuple[str, tuple[str, bytes]]]:
    """Algorithm and digest by path."""
    known: set[str] = set()
    for row in csv.reader(StringIO(text, newline="")):
        if len(row) < 2 or not row[1]:
            continue
        algorithm, _, digest = row[1].partition("=")
        if algorithm not in known:
            _check(algorithm)
            known.add(algorithm)
        yield row[0].replace("\\", "/"), (algorithm, urlsafe_b64decode(f"{digest}{'=' * (-len(digest) % 4)}"))


def _check(algorithm: str) -> None:
    if algorithm.lower() in _WEAK:
        raise ValueError(f"Weak hash algorithm {algorithm} in RECORD")
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake_"):
        raise ValueError(f"Unsupported hash algorithm {algorithm} in RECORD")


def _is_small(item: zipfile.ZipInfo) -> bool:
    plain = item.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not item.flag_bits & _ENCRYPTED
    return plain and max(item.file_size, item.compress_size) <= _WHOLE


def _content(item: zipfile.ZipInfo, file: IO[bytes]) -> bytes:
    file.seek(item.header_offset)
    header = file.read(_HEADER.size)
    signature, name, extra = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0)
    if signature != _SIGNATURE:
        raise zipfile.BadZipFile(f"no file {item.filename!r} where the archive names it")
    file.seek(name + extra, os.SEEK_CUR)
    content = file.read(item.compress_size)
    if item.compress_type == zipfile.ZIP_DEFLATED:
        # One byte more than stated shows that there are more.
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, item.file_size + 1)
    if len(content) != item.file_size:
        raise zipfile.BadZipFile(f"{item.filename!r} has another size than the archive states")
    return content
