"""Tar headers of layers and archives: POSIX ustar, with PAX records only if ustar cannot hold a name or size.

`tarfile` takes four times as long, and its headers depend on its version. Every field that depends on
the machine is fixed. Source: POSIX.1-2017, pax, "ustar Interchange Format"; image-spec layer.md.
"""

from __future__ import annotations

BLOCK = 512
MTIME = 315619200
"""1980-01-02T00:00:00Z, so that tools can repack an environment as zip, which holds local times from 1980 on:
a day earlier is 1979 in America."""
END = bytes(2 * BLOCK)
LARGEST = 8**11 - 1
"""Limit of a file's size in ustar's eleven octal digits."""

# mode is filled in; uid and gid are 0 and their names empty: the user who packs is not part of the content.
_OWNER = b"0000000\x000000000\x00"
_TIME = b"%011o\x00" % MTIME
_AFTER_LINK = b"ustar\x0000" + bytes(32) + bytes(32) + b"0000000\x000000000\x00"
_FIXED_SUM = sum(_OWNER) + sum(_TIME) + sum(_AFTER_LINK) + 8 * 0x20


def file_header(name: bytes, mode: int, size: int) -> bytes:
    """Header blocks of a regular file."""
    return _header(name, mode, size, b"0", b"")


def symlink_header(name: bytes, target: bytes) -> bytes:
    """Blocks of a symlink."""
    return _header(name, 0o777, 0, b"2", target)


def folder_header(name: bytes) -> bytes:
    """Blocks of a folder; `name` ends in a slash."""
    return _header(name, 0o755, 0, b"5", b"")


def padding(size: int) -> bytes:
    """Zeros that fill a file's last block."""
    return bytes(-size % BLOCK)


def _header(name: bytes, mode: int, size: int, flag: bytes, link: bytes) -> bytes:
    pax = b""
    split = _split(name)
    if split is None:
        pax += _record(b"path", name)
        split = b"", name[:100]
    if len(link) > 100:
        pax += _record(b"linkpath", link)
        link = link[:100]
    if size > LARGEST:
        pax += _record(b"size", b"%d" % size)
        size = 0
    block = _block(split, mode, size, flag, link)
    if not pax:
        return block
    # The name is for readers without PAX, and no file of the layer can have it.
    return _block((b"", b"././@PaxHeader"), 0o644, len(pax), b"x", b"") + pax + padding(len(pax)) + block


def _block(path: tuple[bytes, bytes], mode: int, size: int, flag: bytes, link: bytes) -> bytes:
    prefix, name = path
    mode_field = b"%07o\x00" % mode
    size_field = b"%011o\x00" % size
    check = (
        _FIXED_SUM + sum(name) + sum(mode_field) + sum(size_field) + sum(flag) + sum(link) + sum(prefix)
    )  # a sum over the parts: over the block it is the slowest thing here
    return b"".join(
        (
            name.ljust(100, b"\0"),
            mode_field,
            _OWNER,
            size_field,
            _TIME,
            b"%06o\x00 " % check,
            flag,
            link.ljust(100, b"\0"),
            _AFTER_LINK,
            prefix.ljust(155, b"\0"),
            bytes(12),
        )
    )


def _split(name: bytes) -> tuple[bytes, bytes] | None:
    """Split `name` into ustar's (prefix, name), or None if it does not fit."""
    if len(name) <= 100:
        return b"", name
    # The first slash that leaves at most 100 bytes behind it: the shortest prefix, so that the split is unique.
    at = name.find(b"/", len(name) - 101)
    if at < 0 or at > 155 or at == len(name) - 1:
        return None
    return name[:at], name[at + 1 :]


def _record(key: bytes, value: bytes) -> bytes:
    # A PAX record's length counts its own digits.
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
