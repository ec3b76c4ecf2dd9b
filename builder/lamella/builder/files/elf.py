"""Read an ELF file's requirements. Source: gABI chapter 5, the GNU symbol versioning document.

A reader of our own: the standard library has none, and a process per file would cost a second.
"""

from __future__ import annotations

import json
import mmap
import struct
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAGIC = b"\x7fELF"

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_NOTE = 1, 2, 3, 4
_DT_NEEDED, _DT_STRTAB, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 14, 15, 29
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_NT_GNU_PROPERTY = 5
_X86_ISA_1_NEEDED = 0xC0008002
_MACHINES = {3: "386", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64", 21: "ppc64le", 22: "s390x"}
_MOST = 4096
"""Maximum entries to read of one table: real files have dozens, a hostile one may claim billions."""


@dataclass(frozen=True, slots=True)
class Elf:
    """An ELF file as the dynamic loader sees it."""

    machine: str
    """Architecture by its OCI name; empty if OCI has no name for it."""
    soname: str
    needed: tuple[str, ...]
    """Sonames in file order (DT_NEEDED)."""
    rpath: tuple[str, ...]
    """Folders of DT_RPATH, `$ORIGIN` not expanded; empty if there is a DT_RUNPATH, as in ld.so(8)."""
    runpath: tuple[str, ...]
    glibc: tuple[int, ...]
    """Newest GLIBC_ symbol version that it needs, such as (2, 28); empty for none."""
    level: int
    """x86-64 level that it is marked to need, 2 to 4; 1 if it has no mark."""
    program: bool = False
    """Whether it names the dynamic loader, as programs do, and a few libraries that can be run."""

    def dump(self) -> str:
        """Return text for the cache; see `load`."""
        return json.dumps([getattr(self, field.name) for field in fields(self)])

    @classmethod
    def load(cls, text: str) -> Elf:
        """Return the value that `dump` wrote."""
        machine, soname, needed, rpath, runpath, glibc, level, program = json.loads(text)
        return cls(machine, soname, tuple(needed), tuple(rpath), tuple(runpath), tuple(glibc), level, program)


def machine_of(head: bytes) -> str:
    """OCI architecture of the ELF file that begins with `head`; empty if OCI has no name for it."""
    if len(head) < 20 or head[5] not in (1, 2):
        return ""
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    return _MACHINES.get(machine, "")


def read_elf(descriptor: int) -> Elf | None:
    """Parse the open file. None if it is not ELF or is truncated: it cannot be loaded and needs nothing."""
    try:
        with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as image:
            return _parse(image)
    except (ValueError, LookupError, ArithmeticError, OSError, struct.error):
        return None


def _parse(image: mmap.mmap) -> Elf | None:
    if image[:4] != MAGIC or image[4] not in (1, 2) or image[5] not in (1, 2):
        return None
    wide, order = image[4] == 2, "<" if image[5] == 1 else ">"
    (machine,) = struct.unpack_from(order + "H", image, 18)
    segments = list(_segments(image, wide, order))
    tags = list(_dynamic(image, wide, order, segments))
    table = dict(tags)

    def text(offset: int) -> str:
        start = _position(segments, table[_DT_STRTAB]) + offset
        end = image.find(b"\0", start)
        if end < 0:
            raise ValueError("unterminated string")
        return image[start:end].decode("utf-8", "surrogateescape")

    def folders(tag: int) -> tuple[str, ...]:
        return tuple(part for part in text(table[tag]).split(":") if part) if tag in table else ()

    runpath = folders(_DT_RUNPATH)
    return Elf(
        _MACHINES.get(machine, ""),
        text(table[_DT_SONAME]) if _DT_SONAME in table else "",
        tuple(text(value) for tag, value in tags if tag == _DT_NEEDED),
        () if runpath else folders(_DT_RPATH),
        runpath,
        max(_glibc_versions(image, order, segments, table, text), default=()),
        _level(image, order, segments) if machine == 62 else 1,
        any(kind == _PT_INTERP for kind, *_ in segments),
    )


def _segments(image: mmap.mmap, wide: bool, order: str) -> Iterator[tuple[int, int, int, int]]:
    """Type, offset, address and size of each program header."""
    offset = struct.unpack_from(order + ("Q" if wide else "I"), image, 32 if wide else 28)[0]
    size, count = struct.unpack_from(order + "HH", image, 54 if wide else 42)
    for at in range(offset, offset + size * min(count, _MOST), size or 1):
        if wide:
            kind, _, start, address, _, length = struct.unpack_from(order + "IIQQQQ", image, at)
        else:
            kind, start, address, _, length = struct.unpack_from(order + "IIIII", image, at)
        yield kind, start, address, length


def _position(segments: list[tuple[int, int, int, int]], address: int) -> int:
    """File offset of the loader's `address`."""
    for kind, start, base, length in segments:
        if kind == _PT_LOAD and base <= address < base + length:
            return start + address - base
    raise ValueError("address outside every segment")


def _dynamic(
    image: mmap.mmap, wide: bool, order: str, segments: list[tuple[int, int, int, int]]
) -> Iterator[tuple[int, int]]:
    entry = struct.Struct(order + ("qQ" if wide else "iI"))
    for kind, start, _, length in segments:
        if kind != _PT_DYNAMIC:
            continue
        for at in range(start, start + min(length, _MOST * entry.size), entry.size):
            tag, value = entry.unpack_from(image, at)
            if tag == 0:
                return
            yield tag, value


def _glibc_versions(
    image: mmap.mmap,
    order: str,
    segments: list[tuple[int, int, int, int]],
    table: dict[int, int],
    text: Callable[[int], str],
) -> Iterator[tuple[int, ...]]:
    """GLIBC_ versions in the version-needs section."""
    if _DT_VERNEED not in table:
        return
    at = _position(segments, table[_DT_VERNEED])
    for _ in range(min(table.get(_DT_VERNEEDNUM, 0), _MOST)):
        _, count, _, first, following = struct.unpack_from(order + "HHIII", image, at)
        each = at + first
        for _ in range(min(count, _MOST)):
            _, _, _, name, step = struct.unpack_from(order + "IHHII", image, each)
            version = text(name)
            if version.startswith("GLIBC_") and version[6:7].isdigit():
                yield tuple(int(part) for part in version[6:].split("."))
            each += step
        if not following:
            return
        at += following


def _level(image: mmap.mmap, order: str, segments: list[tuple[int, int, int, int]]) -> int:
    """The x86-64 level in .note.gnu.property. Source: x86-64 psABI, "Program Property"."""
    for kind, start, _, length in segments:
        at, end = start, start + length
        while kind == _PT_NOTE and at + 12 <= end:
            name, size, note = struct.unpack_from(order + "III", image, at)
            inside = at + 12 + (name + 3 & ~3)
            at = inside + (size + 7 & ~7)
            if note != _NT_GNU_PROPERTY or image[inside - 4 : inside] != b"GNU\0":
                continue
            while inside + 8 <= min(at, end):
                property_, length_ = struct.unpack_from(order + "II", image, inside)
                if property_ == _X86_ISA_1_NEEDED:
                    (levels,) = struct.unpack_from(order + "I", image, inside + 8)
                    return max(1, int(levels).bit_length())
                inside += 8 + (length_ + 7 & ~7)
    return 1
