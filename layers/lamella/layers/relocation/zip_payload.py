"""Zip archives behind a script's text: their offsets, which move with the text's length.

Source: PKWARE's APPNOTE.TXT, 4.3.12 to 4.3.16 and 4.5.3.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lamella.layers.relocation.prefixes import CannotRelocate

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterable


def zip_archive(content: bytes | mmap.mmap) -> tuple[int, list[tuple[int, int]]] | None:
    """Where the zip archive at the end of `content` begins, and its fields that count from the start of `content`.

    A field is (position, bytes). An archive that counts from its own start has none. None without an archive. Source:
    PKWARE's APPNOTE.TXT, 4.3.12 to 4.3.16 and 4.5.3.
    """
    end = content.rfind(b"PK\5\6", max(0, len(content) - 22 - 0xFFFF))
    try:
        if end < 0 or end + 22 + struct.unpack_from("<H", content, end + 20)[0] != len(content):
            return None
        size, offset = struct.unpack_from("<II", content, end + 12)
        fields = [(end + 16, 4)]
        if content[end - 20 : end - 16] == b"PK\6\7" and content[end - 76 : end - 72] == b"PK\6\6":
            size, offset = struct.unpack_from("<QQ", content, end - 36)
            in_both = struct.unpack_from("<I", content, end + 16)[0] == offset
            fields = [(end - 12, 8), (end - 28, 8), *(fields if in_both else ())]
            end -= 76
        at = end - size
        before = at - offset
        if before < 0 or at < 0:
            return None
        first = offset
        while at < end:
            if content[at : at + 4] != b"PK\1\2":
                return None
            name, extra, note = struct.unpack_from("<HHH", content, at + 28)
            field = _local_offset(content, at, at + 46 + name, extra)
            fields.append(field)
            first = min(first, int.from_bytes(content[field[0] : field[0] + field[1]], "little"))
            at += 46 + name + extra + note
    except struct.error:
        return None
    return first + before, [] if before else fields


def _local_offset(content: bytes | mmap.mmap, entry: int, extra: int, size: int) -> tuple[int, int]:
    """The field of a directory's entry that says where its file is."""
    packed, unpacked = struct.unpack_from("<II", content, entry + 20)
    (offset,) = struct.unpack_from("<I", content, entry + 42)
    at = extra
    while offset == 0xFFFFFFFF and at + 4 <= extra + size:
        kind, length = struct.unpack_from("<HH", content, at)
        if kind == 1:
            return at + 4 + 8 * (packed == 0xFFFFFFFF) + 8 * (unpacked == 0xFFFFFFFF), 8
        at += 4 + length
    return entry + 42, 4


def moved_fields(content: bytes | mmap.mmap, fields: Iterable[tuple[int, int]], by: int) -> list[tuple[int, bytes]]:
    """The `fields` of a zip archive, each with `by` added, as (position, bytes)."""
    result = []
    for at, size in fields:
        value = int.from_bytes(content[at : at + size], "little") + by
        if not 0 <= value < 1 << 8 * size:
            raise CannotRelocate(f"holds a zip archive that cannot move by {by} bytes")
        result.append((at, value.to_bytes(size, "little")))
    return sorted(result)


def moved(content: bytes, start: int, fields: Iterable[tuple[int, bytes]]) -> bytes:
    """`content`, which begins at `start`, with the bytes of `fields` at their positions."""
    parts = []
    at = 0
    for position, value in fields:
        parts += [content[at : position - start], value]
        at = position - start + len(value)
    return b"".join([*parts, content[at:]])
