"""Shared libraries without their symbols for debuggers, the same on every machine."""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_LOAD = 1


def stripped(library: bytes) -> bytes:
    """Return a 64-bit little-endian shared library up to the end of what the loader maps.

    Sections for debuggers and linkers follow that in the file, and the loader reads none. `strip` would do the same, but
    only for its own machine's libraries. Source: ELF-64 object file format, version 1.5.
    """
    fields = list(_HEADER.unpack_from(library))
    if fields[0][:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    at, count = fields[5], fields[10]
    headers = [_PROGRAM_HEADER.unpack_from(library, at + _PROGRAM_HEADER.size * number) for number in range(count)]
    end = max(offset + size for kind, _flags, offset, _address, _physical, size, *_rest in headers if kind == _LOAD)
    # e_shoff, e_shnum and e_shstrndx: no section header table.
    fields[6] = fields[12] = fields[13] = 0
    return _HEADER.pack(*fields) + library[_HEADER.size : end]
