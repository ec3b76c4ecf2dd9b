"""Archives of an environment: the same environment gives the same bytes, on any machine and at any time."""

from __future__ import annotations

import stat
import time
import zipfile
from typing import IO, TYPE_CHECKING

from lamella.layers.tar import headers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lamella.layers.exporting.compress import Writer
    from lamella.layers.exporting.members import Member

_SMALL = 64 << 10
"""Bytes of a file that is written with its header in one piece."""


def write_tar(
    out: Writer, members: Iterable[Member], root: str, done: Callable[[int], object], *, folders: bool = False
) -> None:
    """Write `members` as a tar below `root` (empty, or a path with a slash at its end); call `done` with bytes.

    Without `folders`, folders have no entries: tar makes them for the user who unpacks, with that user's modes.
    """
    made: set[bytes] = set()
    for member in members:
        name = (root + member.path).encode("utf-8", "surrogateescape")
        if folders:
            for folder in _above(name, made):
                out.write(headers.folder_header(folder))
        if member.target is not None:
            out.write(headers.symlink_header(name, member.target.encode("utf-8", "surrogateescape")))
            continue
        header = headers.file_header(name, member.mode, member.size)
        if member.size <= _SMALL:
            out.write(b"".join((header, *member.read(), headers.padding(member.size))))
        else:
            out.write(header)
            for piece in member.read():
                out.write(piece)
            out.write(headers.padding(member.size))
        done(member.size)
    out.write(headers.END)


def _above(name: bytes, made: set[bytes]) -> Iterator[bytes]:
    """Yield the folders above `name` that are not yet `made`."""
    at = name.find(b"/") + 1
    while at:
        if name[:at] not in made:
            made.add(name[:at])
            yield name[:at]
        at = name.find(b"/", at) + 1


def write_zip(file: IO[bytes], members: Iterable[Member], root: str, level: int, done: Callable[[int], object]) -> None:
    """Write `members` as a zip below `root`, with modes and links as Info-ZIP keeps them."""
    when = time.gmtime(headers.MTIME)[:6]
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        for member in members:
            header = zipfile.ZipInfo(root + member.path, when)
            header.create_system = 3  # Unix: the attributes are a mode
            if member.target is not None:
                header.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(header, member.target.encode("utf-8", "surrogateescape"))
                continue
            header.external_attr = (stat.S_IFREG | member.mode) << 16
            header.compress_type = zipfile.ZIP_DEFLATED
            header._compresslevel = level  # type: ignore[attr-defined] # an open ZipInfo ignores the archive's own
            header.file_size = member.size
            with archive.open(header, "w") as written:
                for piece in member.read():
                    written.write(piece)
            done(member.size)
