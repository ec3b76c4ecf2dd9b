"""Archives of an environment: the same environment gives the same bytes, wherever and whenever it is exported."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass
from operator import attrgetter
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    _Folder = dict[str, "Member | _Folder"]

TIME = 315619200
"""1980-01-02T00:00:00Z, which zip can hold in every time zone."""
_ZIP_TIME = (1980, 1, 2, 0, 0, 0)
_GZIP_LEVEL = 4
"""conda-pack's: 6 takes twice as long for a twentieth less."""
_ZSTD_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Member:
    """A file or link of the environment: bytes at `source`, or `content` if `source` is empty."""

    path: str
    source: str = ""
    content: bytes = b""
    mode: int = 0o644

    def open(self) -> IO[bytes]:
        """Its bytes."""
        return open(self.source, "rb") if self.source else io.BytesIO(self.content)


def entries(
    folders: Sequence[str], more: Mapping[str, tuple[bytes, int]], without: Collection[str] = ()
) -> list[Member]:
    """Merge `folders` (lowest first) and `more`, sorted, except the paths `without`.

    Where two hold one path, the later one's is taken whole, as in an overlay: below a file or a link of a later folder
    there is nothing, so that no archive holds both a link and what would be written through it.
    """
    root: _Folder = {}
    for folder in folders:
        _walk(folder, "", root)
    for path in without:
        _folder(root, os.path.dirname(path)).pop(os.path.basename(path), None)
    for path, (content, mode) in more.items():
        _folder(root, os.path.dirname(path))[os.path.basename(path)] = Member(path, content=content, mode=mode)
    return sorted(_flat(root), key=attrgetter("path"))


def write_tar(file: IO[bytes], listed: Iterable[Member], done: Callable[[int], object]) -> None:
    """A PAX tar of `listed`, without folders' own entries; `done` gets the number of bytes written."""
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=1 << 20) as tar:
        for entry in listed:
            header = tarfile.TarInfo(entry.path)
            header.mtime, header.mode = TIME, entry.mode
            if entry.source and os.path.islink(entry.source):
                header.type, header.linkname, header.mode = tarfile.SYMTYPE, os.readlink(entry.source), 0o777
                tar.addfile(header)
                continue
            with entry.open() as content:
                header.size = content.seek(0, os.SEEK_END)
                content.seek(0)
                tar.addfile(header, content)
            done(header.size)


def write_gzip(file: IO[bytes], listed: Iterable[Member], done: Callable[[int], object]) -> None:
    """The tar, compressed with gzip."""
    with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as compressed:
        write_tar(compressed, listed, done)  # type: ignore[arg-type] # GzipFile writes bytes


def write_zstd(file: IO[bytes], listed: Iterable[Member], done: Callable[[int], object]) -> None:
    """The tar, compressed with zstd on all processors."""
    import zstandard

    with ExitStack() as stack:
        compressor = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=os.cpu_count() or 1)
        write_tar(stack.enter_context(compressor.stream_writer(file, closefd=False)), listed, done)


def write_zip(file: IO[bytes], listed: Iterable[Member], done: Callable[[int], object]) -> None:
    """A zip of `listed`, with modes and links as Info-ZIP keeps them."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=_GZIP_LEVEL) as archive:
        for entry in listed:
            header = zipfile.ZipInfo(entry.path, _ZIP_TIME)
            header.create_system = 3  # Unix: the attributes are a mode
            if entry.source and os.path.islink(entry.source):
                header.external_attr = (stat.S_IFLNK | 0o777) << 16
                archive.writestr(header, os.fsencode(os.readlink(entry.source)))
                continue
            header.external_attr = (stat.S_IFREG | entry.mode) << 16
            header.compress_type = zipfile.ZIP_DEFLATED
            with entry.open() as content:
                header.file_size = content.seek(0, os.SEEK_END)
                content.seek(0)
                with archive.open(header, "w") as written:
                    while block := content.read(1 << 20):
                        written.write(block)
            done(header.file_size)


def _walk(folder: str, below: str, found: _Folder) -> None:
    with os.scandir(f"{folder}/{below}") as listed:
        for item in listed:
            path = f"{below}{item.name}"
            if item.is_dir(follow_symlinks=False):
                _walk(folder, f"{path}/", _inner(found, item.name))
            else:
                mode = 0o755 if item.stat(follow_symlinks=False).st_mode & 0o100 else 0o644
                found[item.name] = Member(path, item.path, mode=mode)


def _folder(root: _Folder, path: str) -> _Folder:
    for name in path.split("/"):
        root = _inner(root, name)
    return root


def _inner(found: _Folder, name: str) -> _Folder:
    inner = found.get(name)
    if not isinstance(inner, dict):
        inner = found[name] = {}
    return inner


def _flat(found: _Folder) -> Iterator[Member]:
    for item in found.values():
        if isinstance(item, dict):
            yield from _flat(item)
        else:
            yield item
