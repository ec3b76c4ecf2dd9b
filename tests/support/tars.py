"""Tars written block by block, so that they can be wrong in one place; and layers made of them."""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
from io import BytesIO
from typing import TYPE_CHECKING

import zstandard

from lamella.layers.oci.annotations import PACKAGE, UNPACKED, VERSION
from lamella.layers.oci.documents import LAYER_TAR, LAYER_ZSTD, Descriptor, Digest, Layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Files = Mapping[str, str | bytes]

BLOCK = 512
END = bytes(2 * BLOCK)
MTIME = 315619200
POSIX = b"ustar\x0000"
GNU = b"ustar  \x00"


def header(
    name: bytes,
    *,
    flag: bytes = b"0",
    size: int | bytes = 0,
    mode: int | bytes = 0o644,
    mtime: int | bytes = MTIME,
    link: bytes = b"",
    magic: bytes = POSIX,
    prefix: bytes = b"",
) -> bytes:
    """One header block with a right checksum. Bytes stand in their field as they are."""
    fields = [
        name.ljust(100, b"\0"),
        mode if isinstance(mode, bytes) else b"%07o\0" % mode,
        b"0000000\0" * 2,
        size if isinstance(size, bytes) else b"%011o\0" % size,
        mtime if isinstance(mtime, bytes) else b"%011o\0" % mtime,
        b" " * 8,
        flag,
        link.ljust(100, b"\0"),
        magic,
        bytes(64),
        b"0000000\0" * 2,
        prefix.ljust(155, b"\0"),
        bytes(12),
    ]
    block = b"".join(fields)
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def extract(
    archive: tarfile.TarFile,
    folder: str | os.PathLike[str],
    members: Iterable[tarfile.TarInfo] | None = None,
    *,
    trusted: bool = False,
) -> None:
    """Extract by the `data` filter, which the first releases of Python 3.10 and 3.11 lack; by none if `trusted`."""
    archive.extraction_filter = _unfiltered if trusted else getattr(tarfile, "data_filter", _unfiltered)
    archive.extractall(folder, members)


def _unfiltered(member: tarfile.TarInfo, _: str) -> tarfile.TarInfo:
    return member


def padded(content: bytes) -> bytes:
    """`content`, filled up to whole blocks."""
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"", mode: int | bytes = 0o644) -> bytes:
    """A regular file."""
    return header(name, size=len(content), mode=mode) + padded(content)


def folder(name: bytes, mode: int | bytes = 0o755) -> bytes:
    """A folder."""
    return header(name, flag=b"5", mode=mode)


def symlink(name: bytes, target: bytes) -> bytes:
    """A symlink."""
    return header(name, flag=b"2", mode=0o777, link=target)


def hardlink(name: bytes, target: bytes) -> bytes:
    """A hardlink."""
    return header(name, flag=b"1", link=target)


def pax(body: bytes | Mapping[bytes, bytes], flag: bytes = b"x") -> bytes:
    """A PAX header for the next entry: records, or a body as it is."""
    if not isinstance(body, bytes):
        body = b"".join(record(key, value) for key, value in body.items())
    return header(b"././@PaxHeader", flag=flag, size=len(body)) + padded(body)


def record(key: bytes, value: bytes) -> bytes:
    """One PAX record, its own length in front of it."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(b"%d" % length) + len(rest) != length:
        length = len(b"%d" % length) + len(rest)
    return b"%d" % length + rest


def tree(files: Mapping[str, bytes]) -> bytes:
    """A canonical tar of `files` with their folders; a name that ends in `*` is executable."""
    folders = {"/".join(parts[:depth]) for parts in map(_parts, files) for depth in range(1, len(parts))}
    entries = {name: folder(name.encode() + b"/") for name in folders}
    for name, content in files.items():
        entries[name.rstrip("*")] = file(name.rstrip("*").encode(), content, 0o755 if name.endswith("*") else 0o644)
    return b"".join(entries[name] for name in sorted(entries)) + END


def _parts(name: str) -> list[str]:
    return name.split("/")


def archive(files: Files, prefix: str) -> bytes:
    """A layer's tar: `files` below the image prefix; `*` and `->` as in `support.trees.write`."""
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders: set[str] = set()
        for name, content in sorted(files.items()):
            path = f"{prefix[1:]}/{name.rstrip('*')}"
            parts = path.split("/")
            for depth in range(1, len(parts)):
                folder = "/".join(parts[:depth])
                if folder not in folders:
                    folders.add(folder)
                    entry = tarfile.TarInfo(folder)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(entry)
            entry = tarfile.TarInfo(path)
            if isinstance(content, str) and content.startswith("->"):
                entry.type, entry.linkname, entry.mode = tarfile.SYMTYPE, content[2:], 0o777
                tar.addfile(entry)
                continue
            data = content.encode() if isinstance(content, str) else content
            entry.size, entry.mode = len(data), 0o755 if name.endswith("*") else 0o644
            tar.addfile(entry, BytesIO(data))
    return made.getvalue()


def layer(
    tar: bytes, media_type: str = LAYER_ZSTD, *, package: str = "demo", unpacked: int | None = None, blob: bytes = b""
) -> tuple[Layer, bytes]:
    """A layer of `tar`, and its blob."""
    if not blob and media_type == LAYER_TAR:
        blob = tar
    elif not blob:
        blob = zstandard.compress(tar) if media_type == LAYER_ZSTD else gzip.compress(tar)
    announced = {} if unpacked is None else {UNPACKED: str(unpacked)}
    described = Descriptor.of(media_type, blob, {PACKAGE: package, VERSION: "1.0"} | announced)
    return Layer(described, Digest.of(tar)), blob


def snapshot(root: str | os.PathLike[str]) -> dict[str, tuple[int, str]]:
    """Every path below `root`, with its mode and its content's hash or its link's text."""
    seen = {}
    base = os.fspath(root)
    for here, folders, files in os.walk(base):
        for name in (*folders, *files):
            path = os.path.join(here, name)
            mode = os.lstat(path).st_mode
            if os.path.islink(path):
                what = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as opened:
                    what = hashlib.sha256(opened.read()).hexdigest()
            else:
                what = ""
            seen[os.path.relpath(path, base)] = (mode, what)
    return seen
