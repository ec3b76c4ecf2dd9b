"""A streaming tar reader that accepts one reading of an archive and refuses every other.

What it takes: POSIX ustar headers, PAX extended headers with the records that a layer needs; files, folders,
symlinks, hardlinks. Everything else is refused by name. `tarfile` guesses where archives are ambiguous (GNU long
names, base-256 numbers, sizes that disagree), and guesses are how two tools come to unpack two trees from one digest.
Source: POSIX.1-2017, pax, "pax Interchange Format"; image-spec layer.md.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import InvalidContent, UnsafeLayer
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.storage import Reader

Kind = Literal["file", "folder", "symlink", "hardlink"]

BLOCK = 512
MAX_DEPTH = 128
"""Folders above an entry: each is an open descriptor while it is unpacked."""
MAX_ENTRIES = 500_000
"""Entries of one layer: the largest environments known have half of that in all their packages together."""

_CHUNK = 1 << 18  # fits a core's L2 cache with its compressed form: 1 MiB was 8 % slower
MAX_PATH = 4095
"""Bytes of a path: PATH_MAX counts the NUL."""
_MAX_PAX = 1 << 14  # two paths, a number or two, a comment: an entry of 500,000 costs no more
_MAX_END = 1 << 20  # bytes of zeros, end marker and all: tar(1) fills up to 10 KiB by default
_USTAR_SIZE_LIMIT = 1 << 33  # eleven octal digits

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_MAGIC = b"ustar\x0000"
_ZEROS = bytes(BLOCK)
_NO_MORE = bytes(12)
_KINDS: dict[bytes, Kind] = {b"0": "file", b"\0": "file", b"5": "folder", b"2": "symlink", b"1": "hardlink"}
_REFUSED = {
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
    b"7": "a contiguous file",
    b"g": "a global PAX header",
    b"L": "a GNU long name",
    b"K": "a GNU long link name",
    b"S": "a GNU sparse file",
}
_PATH = re.compile(rb"(?!\.\.?(?:/|\Z))[^/\0]{1,255}(?:/(?!\.\.?(?:/|\Z))[^/\0]{1,255})*")
_NUMBER = re.compile(rb"[0-9]{1,19}")
# As GNU tar reads it: spaces, digits, and then nothing but what fills the field. Of spaces alone it makes an error.
_OCTAL = re.compile(rb" *[0-7]+[ \0]*|\0*")
_TIME = re.compile(rb"([0-9]{1,11})(?:\.[0-9]*)?")
# Who owned a file and when it was read is not kept: a layer is the same for every user of the node.
_PAX_IGNORED = {
    **dict.fromkeys((b"atime", b"ctime"), _TIME),
    **dict.fromkeys((b"uid", b"gid"), _NUMBER),
    **dict.fromkeys((b"uname", b"gname", b"comment"), re.compile(rb"[^\0]*")),
}
_PAX_USED = frozenset({b"path", b"linkpath", b"size", b"mtime"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One member: `path` relative to the archive's root, without `.`, `..` and empty components, in UTF-8 bytes.

    `link` is a symlink's text as it is, or a hardlink's target as a path like `path`. `mtime` in whole seconds.
    """

    path: bytes
    kind: Kind
    executable: bool
    size: int
    mtime: int
    link: bytes


class Archive:
    """Iterates over the entries of a tar stream, once; `content()` gives the current file's bytes.

    The stream is read to its end, so that a verifying reader below has seen everything. Raises `UnsafeLayer` for
    entries that a layer must not hold, and `InvalidContent` for bytes that are not a tar. A `skeleton` is a tar without the content
    and padding of its files, as the store keeps it.
    """

    def __init__(self, stream: Reader, *, skeleton: bool = False, max_entries: int = MAX_ENTRIES) -> None:
        self._stream = stream
        self._max_entries = max_entries
        self._skeleton = skeleton
        self._buffer = b""
        self._at = 0
        self._left = 0
        self._padding = 0
        self.raw = b""
        """The current entry's header blocks as they stood; after the iteration, the end marker and what padded it."""

    def __iter__(self) -> Iterator[Entry]:
        count = 0
        while (entry := self._next()) is not None:
            count += 1
            if count > self._max_entries:
                raise UnsafeLayer(f"more than {self._max_entries} entries; split the package")
            yield entry

    def content(self) -> Iterator[memoryview]:
        """The bytes of the current entry that are still unread, in pieces; each is valid until the next."""
        while self._left:
            if self._at == len(self._buffer):
                self._fill()
            piece = memoryview(self._buffer)[self._at : self._at + self._left]
            self._at += len(piece)
            self._left -= len(piece)
            yield piece

    def _next(self) -> Entry | None:
        for _ in self.content():
            pass
        if self._padding and self._take(self._padding).strip(b"\0"):
            raise UnsafeLayer("bytes are hidden behind the end of a file: the padding of a tar is zeros")
        self._padding = 0
        block = self._take(BLOCK)
        if block == _ZEROS:
            self._finish()
            return None
        records: dict[bytes, bytes] = {}
        self.raw = block
        if block[156:157] == b"x":
            records = self._pax(block)
            block = self._take(BLOCK)
            self.raw += block
        entry = _entry(block, records)
        if entry.kind == "file" and not self._skeleton:
            self._left = entry.size
            self._padding = -entry.size % BLOCK
        return entry

    def _pax(self, block: bytes) -> dict[bytes, bytes]:
        _check_sum(block)
        _, mode, _, _, size_field, mtime, *_ = _check_header(block)
        # tarfile takes a header with a field that is not a number for the end of the tar.
        _octal(mode, "mode", b"a PAX header")
        _octal(mtime, "time", b"a PAX header")
        size = _octal(size_field, "size", b"a PAX header")
        if size > _MAX_PAX:
            raise UnsafeLayer(f"a PAX header has {size} bytes: at most {_MAX_PAX}")
        body = self._take(size)
        padding = self._take(-size % BLOCK)
        if padding.strip(b"\0"):
            raise UnsafeLayer("bytes are hidden behind the end of a PAX header: the padding of a tar is zeros")
        self.raw = block + body + padding
        return _records(body)

    def _finish(self) -> None:
        # Readers that stop at the first zero block and readers that go on must see the same entries.
        zeros = len(_ZEROS)
        while True:
            rest = self._buffer[self._at :]
            if rest.strip(b"\0"):
                raise UnsafeLayer("bytes follow the end of the tar: only zeros may")
            zeros += len(rest)
            if zeros > _MAX_END:
                raise UnsafeLayer(f"more than {_MAX_END >> 20} MiB of zeros end the tar: no packer writes that")
            self._buffer, self._at = self._stream.read(_CHUNK), 0
            if not self._buffer:
                break
        if zeros < 2 * BLOCK:
            raise InvalidContent("the tar ends without its end marker: it was cut short")
        self.raw = bytes(zeros)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end <= len(self._buffer):
            taken = self._buffer[self._at : end]
            self._at = end
            return taken
        parts = []
        while size:
            if self._at == len(self._buffer):
                self._fill()
            part = self._buffer[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _fill(self) -> None:
        self._buffer, self._at = self._stream.read(_CHUNK), 0
        if not self._buffer:
            raise InvalidContent("the tar ends in the middle of an entry: it was cut short")


def shown(path: bytes) -> str:
    """Return a path for a message: quoted, escaped and cut."""
    return f"'{escaped(path, 100)}'"


def _check_header(block: bytes) -> tuple[bytes, ...]:
    """Return the fields of a header, if other readers take them for the same."""
    fields = _HEADER.unpack(block)
    name, _, uid, gid, _, _, _, _, link, magic, user, group, major, minor, prefix, rest = fields
    if (
        _is_plain(block[108:124], block[257:345], block[500:])
        and b"\0" not in name.rstrip(b"\0")
        and b"\0" not in link.rstrip(b"\0")
        and b"\0" not in prefix.rstrip(b"\0")
    ):
        return fields
    if magic != _MAGIC:
        raise UnsafeLayer(f"an entry has the magic {magic!r}: only POSIX (ustar and PAX) archives are unpacked")
    # GNU tar ends with an error at a field that is not a number; others skip the fields that they do not use.
    if _digits(uid) < 0 or _digits(gid) < 0 or _digits(major) < 0 or _digits(minor) < 0:
        raise UnsafeLayer(f"the owner or device of {_name(name)} is not a number: readers disagree on such a header")
    # A text ends at the first NUL, or with its field.
    if (
        b"\0" in name.rstrip(b"\0")
        or b"\0" in link.rstrip(b"\0")
        or b"\0" in prefix.rstrip(b"\0")
        or b"\0" in user.rstrip(b"\0")
        or b"\0" in group.rstrip(b"\0")
        or rest != _NO_MORE
    ):
        raise UnsafeLayer(f"bytes are hidden in the header of {_name(name)}, behind the end of a text")
    return fields


# Owner, group, magic and device are alike for most entries of a layer.
@lru_cache(256)
def _is_plain(owner: bytes, described: bytes, rest: bytes) -> bool:
    """Return whether these parts of a header pass the checks of `_check_header`; the usual ones do."""
    numbers = owner[:8], owner[8:], described[72:80], described[80:]
    texts = described[8:40], described[40:72]
    return (
        described[:8] == _MAGIC
        and rest == _NO_MORE
        and all(_digits(number) >= 0 for number in numbers)
        and not any(b"\0" in text.rstrip(b"\0") for text in texts)
    )


def _name(field: bytes) -> str:
    return shown(field.partition(b"\0")[0])


def _entry(block: bytes, records: dict[bytes, bytes]) -> Entry:
    _check_sum(block)
    name, mode_field, _, _, size_field, mtime_field, _, flag, link_field, *_, prefix, _ = _check_header(block)
    path = records.get(b"path")
    if path is None:
        path = name.rstrip(b"\0")
        if prefix[0]:
            path = prefix.rstrip(b"\0") + b"/" + path
    kind = _KINDS.get(flag)
    if kind is None:
        what = _REFUSED.get(flag, f"of type {flag!r}")
        raise UnsafeLayer(f"{shown(path)} is {what}: no environment needs one in a layer")
    if kind == "folder":
        path = path.rstrip(b"/") or path
    path = _checked_path(path, kind)
    mode = _octal(mode_field, "mode", path)
    if mode & 0o7000:
        raise UnsafeLayer(f"{shown(path)} has mode {mode:o}: setuid, setgid and sticky bits are refused")
    size = _size(size_field, records, path)
    if size and kind != "file":
        raise UnsafeLayer(f"{shown(path)} is a {kind} with {size} bytes of content: readers disagree on what follows")
    link = b""
    if kind in ("symlink", "hardlink"):
        link = records.get(b"linkpath", link_field.rstrip(b"\0"))
        link = _checked_path(link, kind) if kind == "hardlink" else _checked_target(path, link)
    elif b"linkpath" in records or link_field[0]:
        raise UnsafeLayer(f"{shown(path)} is a {kind} with a link's target")
    return Entry(path, kind, bool(mode & 0o111), size, _mtime(mtime_field, records, path), link)


def _checked_path(path: bytes, kind: Kind) -> bytes:
    # `tar -C folder .` writes ./ in front of everything.
    if path.startswith(b"./"):
        path = path[2:].lstrip(b"/")
    elif kind == "folder" and path == b".":
        path = b""
    if not path and kind == "folder":
        return path
    if not _PATH.fullmatch(path) or len(path) > MAX_PATH:
        raise UnsafeLayer(f"{shown(path)} is refused: {_what_is_wrong(path)}")
    if path.count(b"/") >= MAX_DEPTH:
        raise UnsafeLayer(f"{shown(path)} is refused: it is more than {MAX_DEPTH} folders deep")
    if b".wh." in path and any(part.startswith(b".wh.") for part in path.split(b"/")):
        raise UnsafeLayer(f"{shown(path)} is a whiteout: a package's layer removes nothing from other layers")
    if not path.isascii():
        try:
            path.decode()
        except UnicodeDecodeError:
            raise UnsafeLayer(f"{shown(path)} is refused: its name is not UTF-8") from None
    return path


def _what_is_wrong(path: bytes) -> str:
    parts = path.split(b"/")
    if b"\0" in path:
        return "its name holds a NUL"
    if len(path) > MAX_PATH:
        return f"its path has {len(path)} bytes, and {MAX_PATH} is the most that Linux takes"
    if path.startswith(b"/"):
        return "its path is absolute"
    if b".." in parts:
        return "its path leaves its folder with '..'"
    if any(len(part) > 255 for part in parts):
        return "a part of its path is longer than 255 bytes"
    return "its path has an empty part or a '.' in it"


def _checked_target(path: bytes, target: bytes) -> bytes:
    # Where a symlink leads is not judged: nothing is ever written or read through one.
    if not target or b"\0" in target or len(target) > MAX_PATH:
        raise UnsafeLayer(
            f"{shown(path)} is a symlink to {shown(target)}, which is not 1 to {MAX_PATH} bytes without a NUL"
        )
    return target


def _size(field: bytes, records: dict[bytes, bytes], path: bytes) -> int:
    size = _octal(field, "size", path)
    stated = records.get(b"size")
    if stated is None:
        return size
    if not _NUMBER.fullmatch(stated):
        raise UnsafeLayer(f"{shown(path)} has the PAX size {shown(stated)}, which is not a whole number")
    # A size that the ustar field could hold and holds differently is one archive for this reader and another for
    # one without PAX.
    if int(stated) != size and not (size == 0 and int(stated) >= _USTAR_SIZE_LIMIT):
        raise UnsafeLayer(f"{shown(path)} has two sizes, {size} in its header and {int(stated)} in its PAX record")
    return int(stated)


def _mtime(field: bytes, records: dict[bytes, bytes], path: bytes) -> int:
    stated = records.get(b"mtime")
    if stated is None:
        return _octal(field, "time", path)
    match = _TIME.fullmatch(stated)
    if not match:
        raise UnsafeLayer(f"{shown(path)} has the time {shown(stated)}, which is not in seconds since 1970")
    return int(match[1])


def _octal(field: bytes, what: str, path: bytes) -> int:
    value = _digits(field)
    if value < 0:
        raise UnsafeLayer(f"the {what} of {shown(path)} is {field!r}, which is not in octal digits")
    return value


# Most entries of a layer have one mode and one time.
@lru_cache(1024)
def _digits(field: bytes) -> int:
    """Return an octal field's number, 0 for an empty one, -1 for anything else."""
    # int() would also take signs, underscores and spaces between; base-256 has the high bit set.
    if not _OCTAL.fullmatch(field):
        return -1
    return int(field.strip(b" \0") or b"0", 8)


def _check_sum(block: bytes) -> None:
    # Adler-32's lower half is one more than the sum of the bytes, modulo 65521: 20 times as fast as sum().
    total = zlib.adler32(block[:148] + b"        " + block[156:]) & 0xFFFF
    if (_octal(block[148:156], "checksum", b"a header") + 1) % 65521 != total:
        raise InvalidContent("a tar header has a wrong checksum: not a tar, or damaged")


def _records(body: bytes) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        digits, space, _ = body[at : at + 8].partition(b" ")
        end = at + (int(digits) if space and digits.isdigit() else 0)
        record = body[at + len(digits) + 1 : end]
        key, equals, value = record[:-1].partition(b"=")
        if end > len(body) or not equals or not record.endswith(b"\n"):
            raise UnsafeLayer(f"a PAX record is malformed near {shown(body[at : at + 40])}")
        ignored = _PAX_IGNORED.get(key)
        if key not in _PAX_USED and not ignored:
            raise UnsafeLayer(f"a PAX record {shown(key)} is refused: no layer needs extended attributes or extensions")
        if ignored and not ignored.fullmatch(value):
            raise UnsafeLayer(f"a PAX record {shown(key)} is {shown(value)}: readers disagree on what that means")
        if key in records:
            raise UnsafeLayer(f"a PAX header holds {shown(key)} twice")
        if key in _PAX_USED and (not value or b"\0" in value):
            raise UnsafeLayer(f"a PAX record {shown(key)} is empty or holds a NUL")
        records[key] = value
        at = end
    return records
