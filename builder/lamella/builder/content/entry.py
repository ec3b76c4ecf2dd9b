"""Entries of a layer: their names in the image, and the source of their bytes.

An entry's `digest` and `size` are those of the bytes that ship, known before they are read: they decide
the layer key. `read_entry` reads the bytes, and raises an error if they do not match.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.content.prefix_rewrite import rewrite_binary, rewrite_text
from lamella.builder.content.rpath import patched
from lamella.builder.content.scripts import LOOK, with_direct_line, with_shebang
from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files.small_file import READ, read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.builder.content.payload import Payload
    from lamella.builder.environment import File, Holds, RunPath

CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file that ships with other bytes than it has on this disk."""

    file: File
    prefixes: tuple[bytes, ...] = ()
    """Prefixes to replace by `image_prefix`; empty for none."""
    image_prefix: str = ""
    holds: Holds = ""
    padded: bool = False
    shebang: bool = False
    """Whether its first line names a Python, to be replaced by the environment's."""
    run_path: RunPath | None = None
    """Run path to set in an ELF file; None to leave it alone."""
    strip_runpath: bool = False
    """Whether to remove RUNPATHs to absolute folders from an ELF file."""
    payload: Payload | None = None
    """The binary data behind a script's text; then that text is what changes."""

    @property
    def rule(self) -> str:
        """Name of the changes, for a cache of results: equal rules on equal bytes give equal bytes."""
        prefixes = b"\0".join(self.prefixes).hex()
        return (
            f"{prefixes} {self.image_prefix} {self.holds} {self.padded:d} {self.shebang:d} {self.run_path} "
            f"{self.strip_runpath:d} {self.payload is not None:d} {self.file.mode:o}"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or symlink of a layer. Directories follow from the paths."""

    path: str
    """Path in the image, without a leading slash: opt/env/bin/pip."""
    mode: int
    size: int
    """Bytes to ship; 0 for a symlink."""
    digest: str
    """sha256 of the bytes to ship, 64 hex digits; empty for a symlink."""
    content: File | Rewritten | bytes
    """Source of the bytes: an unchanged file, a file to rewrite, or the bytes themselves."""
    target: str | None = None
    """Target of a symlink."""


def read_entry(entry: Entry) -> Iterator[bytes]:
    """Yield the bytes to ship. Raises `EnvironmentChanged` before the last if they do not match `entry`."""
    if isinstance(entry.content, bytes):
        yield entry.content
        return
    file = entry.content.file if isinstance(entry.content, Rewritten) else entry.content
    left = entry.size
    seen = hashlib.sha256()
    for chunk in read_rewritten(entry.content) if isinstance(entry.content, Rewritten) else _chunks(file):
        left -= len(chunk)
        if left < 0:
            raise changed(file)
        seen.update(chunk)
        if not left and seen.hexdigest() != entry.digest:
            raise changed(file)
        yield chunk
    if left or seen.hexdigest() != entry.digest:
        raise changed(file)


def changed(file: File) -> EnvironmentChanged:
    """Error for a file that changed since the scan."""
    return EnvironmentChanged(
        f"{file.source}: changed while it was being packed; push again when nothing writes to the environment"
    )


def has_times(file: File, seen: os.stat_result) -> bool:
    """Whether a file has the size and the times that it was scanned with."""
    return (seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns) == (file.size, file.mtime_ns, file.ctime_ns)


def read_file(file: File) -> Iterator[bytes]:
    """Yield a file's bytes as scanned. Raises `EnvironmentChanged` at the end if they changed."""
    seen = hashlib.sha256()
    for chunk in _chunks(file):
        seen.update(chunk)
        yield chunk
    if seen.hexdigest() != file.digest:
        raise changed(file)


def _chunks(file: File) -> Iterator[bytes]:
    """Yield a file's current bytes, at most one more than scanned."""
    with opened(file) as descriptor:
        left = file.size + 1
        while left > 0:
            try:
                chunk = os.read(descriptor, min(CHUNK, left))
            except OSError as error:
                raise _unreadable(file, error) from None
            if not chunk:
                return
            left -= len(chunk)
            yield chunk


@contextmanager
def opened(file: File) -> Iterator[int]:
    """Open a file for reading. Raises `EnvironmentChanged` and `CannotBuild`."""
    try:
        # NONBLOCK: do not wait for a writer if a FIFO replaced the file since the scan.
        descriptor = os.open(file.source, READ)
    except OSError as error:
        raise _unreadable(file, error) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_into(descriptor: int, file: File, buffers: Sequence[memoryview | bytearray]) -> int:
    """Read from an `opened` file into `buffers`; return the number of bytes."""
    try:
        return os.readv(descriptor, buffers)
    except OSError as error:
        raise _unreadable(file, error) from None


def _unreadable(file: File, error: OSError) -> EnvironmentChanged | CannotBuild:
    if isinstance(error, FileNotFoundError):
        return changed(file)
    return CannotBuild(f"cannot read {file.source}: {error.strerror}; make it readable")


def head(file: File, size: int) -> bytes:
    """The first `size` bytes of a file, or all of a shorter one."""
    try:
        return read_small(file.source, size)
    except OSError as error:
        raise _unreadable(file, error) from None


def read_rewritten(content: Rewritten) -> Iterator[bytes]:
    """Yield a file's bytes after all changes in `content`."""
    file = content.file
    chunks: Iterable[bytes] = read_file(file)
    if content.payload:
        yield from content.payload.shipped(chunks)
        return
    if content.shebang:
        # `padded` files are a conda package's.
        chunks = _with_first(chunks, lambda head: with_shebang(head, content.image_prefix, conda=content.padded))
    elif content.holds == "text":
        chunks = _with_first(chunks, lambda head: with_direct_line(head, content.prefixes, content.image_prefix))
    if content.prefixes:
        target = os.fsencode(content.image_prefix)
        if content.holds == "binary":
            chunks = rewrite_binary(chunks, content.prefixes, target, name=file.source, padded=content.padded)
        elif content.holds == "text":
            chunks = rewrite_text(chunks, content.prefixes, target)
    if content.run_path is not None or content.strip_runpath:
        # After the prefix, whose length decides whether patchelf makes room for the new path.
        chunks = patched(chunks, file.source, content.run_path)
    yield from chunks


def _with_first(chunks: Iterable[bytes], change: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Yield `chunks` after `change` of their first bytes, which hold every first line for Python."""
    pieces = iter(chunks)
    head = b""
    for chunk in pieces:
        head += chunk
        if len(head) >= LOOK:
            break
    yield change(head)
    yield from pieces


def measured(content: Rewritten) -> tuple[str, int]:
    """sha256 and size of the rewritten file. Reads the file."""
    seen = hashlib.sha256()
    size = 0
    for chunk in read_rewritten(content):
        seen.update(chunk)
        size += len(chunk)
    return seen.hexdigest(), size
