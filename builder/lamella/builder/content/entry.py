"""The entries of a layer: what each is called in the image, and where its bytes come from.

An entry's `digest` and `size` are those of the bytes that ship, known before any of them is read: they decide the
layer key. `read` gives the bytes themselves, and refuses to when they are no longer those.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.content.prefix_rewrite import rewrite_binary, rewrite_text
from lamella.builder.content.rpath import patched
from lamella.builder.content.scripts import with_shebang
from lamella.builder.errors import CannotBuild, EnvironmentChanged
from lamella.builder.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import File, Holds

CHUNK = 1 << 20
WHOLE = 4 << 20
"""Scripts are rewritten whole, up to this size; nobody writes longer ones."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file that ships with other bytes than it has on this disk."""

    file: File
    prefixes: tuple[bytes, ...] = ()
    """What is replaced by `image_prefix`; empty for nothing."""
    image_prefix: str = ""
    holds: Holds = ""
    padded: bool = False
    shebang: bool = False
    """Its first line names a Python: the environment's, from now on."""
    rpath: str | None = None
    """Of an ELF file: the DT_RPATH that it gets; None leaves it alone."""
    strip_runpath: bool = False
    """Of an ELF file: RUNPATHs to absolute folders go."""

    @property
    def rule(self) -> str:
        """Names what is done, for a cache of results: equal rules on equal bytes give equal bytes."""
        prefixes = b"\0".join(self.prefixes).hex()
        return (
            f"{prefixes} {self.image_prefix} {self.holds} {self.padded:d} {self.shebang:d} {self.rpath} "
            f"{self.strip_runpath:d} {self.file.mode:o}"
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One file or symlink of a layer. Directories are made from the paths of what is in them."""

    path: str
    """In the image, without a leading slash: opt/env/bin/pip."""
    mode: int
    size: int
    """Bytes that ship; 0 for a symlink."""
    digest: str
    """sha256 of the bytes that ship, 64 hex digits; empty for a symlink."""
    content: File | Rewritten | bytes
    """Where the bytes come from: a file as it is, a file that is rewritten, or these bytes."""
    target: str | None = None
    """A symlink's target."""


def read_entry(entry: Entry) -> Iterator[bytes]:
    """The bytes that ship, in chunks; `EnvironmentChanged` before their end when they are not what `entry` says."""
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
    """The error for a file whose bytes are not those that were scanned."""
    return EnvironmentChanged(
        f"{file.source} changed while it was being packed: run the push again when nothing writes"
    )


def read_file(file: File) -> Iterator[bytes]:
    """A file's bytes as they were scanned; `EnvironmentChanged` at their end when they are others by now."""
    seen = hashlib.sha256()
    for chunk in _chunks(file):
        seen.update(chunk)
        yield chunk
    if seen.hexdigest() != file.digest:
        raise changed(file)


def _chunks(file: File) -> Iterator[bytes]:
    """A file's bytes as they are now, with at most one more than it had."""
    try:
        handle = os.open(file.source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise changed(file) from None
    except OSError as error:
        raise CannotBuild(f"{file.source} can't be read: {error.strerror}") from None
    try:
        left = file.size + 1
        while left > 0:
            chunk = os.read(handle, min(CHUNK, left))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk
    except OSError as error:
        raise CannotBuild(f"{file.source} can't be read: {error.strerror}") from None
    finally:
        os.close(handle)


def head(file: File, size: int) -> bytes:
    """The first `size` bytes of a file, or all of a shorter one."""
    try:
        return read_small(file.source, size)
    except FileNotFoundError:
        raise changed(file) from None
    except OSError as error:
        raise CannotBuild(f"{file.source} can't be read: {error.strerror}") from None


def read_rewritten(content: Rewritten) -> Iterator[bytes]:
    """A file's bytes after everything that `content` says is done to them."""
    file = content.file
    chunks: Iterable[bytes] = read_file(file)
    if content.rpath is not None or content.strip_runpath:
        chunks = patched(chunks, file.source, rpath=content.rpath)
    if content.shebang:
        chunks = [with_shebang(b"".join(chunks), content.image_prefix)]
    if content.prefixes:
        target = os.fsencode(content.image_prefix)
        if content.holds == "binary":
            chunks = rewrite_binary(chunks, content.prefixes, target, name=file.source, padded=content.padded)
        elif content.holds == "text":
            chunks = rewrite_text(chunks, content.prefixes, target)
    yield from chunks


def measured(content: Rewritten) -> tuple[str, int]:
    """sha256 and size of what `content` gives; reads the file."""
    seen = hashlib.sha256()
    size = 0
    for chunk in read_rewritten(content):
        seen.update(chunk)
        size += len(chunk)
    return seen.hexdigest(), size
