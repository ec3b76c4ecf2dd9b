"""Layers as tar: POSIX ustar headers written by hand, PAX records only where ustar can't hold a name or size.

`tarfile` takes four times as long, and leaves to its version what headers look like. Every field that could tell two
machines apart is fixed. Source: POSIX.1-2017, pax, "ustar Interchange Format"; image-spec layer.md.
"""

from __future__ import annotations

from lamella.builder.errors import CannotBuild

BLOCK = 512
MTIME = 315532800
"""1980-01-01, the oldest time that zip can hold: tools that repack an environment don't fail on it."""
END = bytes(2 * BLOCK)
LARGEST = 8**11 - 1
"""Bytes of a file whose size fits ustar's eleven octal digits."""

# mode is filled in; uid and gid are 0 and their names empty: who packed a layer is not its content.
_OWNER = b"0000000\x000000000\x00"
_TIME = b"%011o\x00" % MTIME
_AFTER_LINK = b"ustar\x0000" + bytes(32) + bytes(32) + b"0000000\x000000000\x00"
_FIXED_SUM = sum(_OWNER) + sum(_TIME) + sum(_AFTER_LINK) + 8 * 0x20


def file_header(name: bytes, mode: int, size: int) -> bytes:
    """The blocks before a regular file's bytes."""
    return _header(name, mode, size, b"0", b"")


def symlink_header(name: bytes, target: bytes) -> bytes:
    """The blocks of a symlink."""
    return _header(name, 0o777, 0, b"2", target)


def folder_header(name: bytes) -> bytes:
    """The blocks of a folder; `name` ends in a slash."""
    return _header(name, 0o755, 0, b"5", b"")


def padding(size: int) -> bytes:
    """The zeros that fill a file's last block."""
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
    # The name is for readers that don't know PAX, and can't be one that a file of the layer has.
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
    """`name` as ustar's (prefix, name), or None where they can't hold it."""
    if len(name) <= 100:
        return b"", name
    # The first slash that leaves at most 100 bytes behind it: the shortest prefix, so that there is one way.
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


def encoded(path: str) -> bytes:
    """A path as a tar's bytes; `CannotBuild` where it has more than any system takes."""
    name = path.encode("utf-8", "surrogateescape")
    if len(name) > 4095 or b"\0" in name:
        raise CannotBuild(f"{path[:100]}… is a path of {len(name)} bytes: systems take at most 4095")
    return name
