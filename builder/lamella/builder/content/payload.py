"""Scripts with a payload: text for a shell or Python, and behind it binary data, in one file.

zipapp, shiv, pex and others write a zip archive behind a shebang, whose offsets count from the start of
the file: they move with the text. Self-extracting scripts (makeself) find their data by a number of
bytes or lines that only they know: there the text keeps its length and its lines. `layers/relocation` does the same on nodes.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.builder.content.prefix_rewrite import rewrite_text
from lamella.builder.content.scripts import named_python, with_shebang
from lamella.builder.errors import CannotBuild
from lamella.builder.files.prefix_pattern import pattern
from lamella.layers.relocation import zip_payload
from lamella.layers.relocation.prefixes import CannotRelocate
from lamella.layers.relocation.rewrite import same_length

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import File

_LONGEST_TEXT = 4 << 20
"""Maximum bytes of text before a payload. Text is rewritten in memory; real ones are a few kilobytes."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A script's payload, and the text before it as it ships."""

    kind: Literal["zip", "fixed"]
    start: int
    """Bytes of text on this disk, before the payload."""
    text: bytes
    """The text to ship."""
    moved: tuple[tuple[int, bytes], ...] = ()
    """Fields of a zip archive, as (position in the file on this disk, bytes to ship)."""

    def shipped(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes to ship of a file that consists of `chunks`."""
        yield self.text
        fields = list(self.moved[::-1])
        at, held = 0, b""
        for chunk in chunks:
            here, held = held + chunk, b""
            end = at + len(here)
            wanted = []
            while fields and fields[-1][0] < end:
                position, value = fields[-1]
                if position + len(value) > end:
                    # A field across two chunks.
                    here, held = here[: position - at], here[position - at :]
                    break
                wanted.append(fields.pop())
            changed = zip_payload.moved(here, at, wanted)
            yield changed[max(0, self.start - at) :]
            at += len(here)
        if held:
            yield held


def find_payload(file: File, prefixes: tuple[bytes, ...], image_prefix: str, *, shebang: bool) -> Payload | None:
    """Return the payload of a script, with its text for `image_prefix`; None for a file that is text alone.

    With `shebang`, its first line is for Python. Raises `CannotBuild` for a text that has no room for the
    image prefix, or that is too long.
    """
    target = os.fsencode(image_prefix)
    try:
        with open(file.source, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            end = content.find(b"\0")
            if end < 0:
                return None
            archive = zip_payload.zip_archive(content)
            start, fields = archive if archive and archive[0] <= end else (end, [])
            if start > _LONGEST_TEXT:
                raise CannotBuild(f"{file.source}: {start} bytes of text before its data, too long to be rewritten")
            text = content[:start]
            if archive and start == archive[0]:
                new = with_shebang(text, image_prefix) if shebang else text
                new = b"".join(rewrite_text([new], prefixes, target)) if prefixes else new
                moved = zip_payload.moved_fields(content, fields, len(new) - len(text))
                return Payload("zip", start, new, tuple(moved))
            python = named_python(text) if shebang else b""
            if python:
                text = _named(text, python, target + b"/bin/python")
            return Payload("fixed", start, same_length(text, prefixes, target))
    except (OSError, ValueError) as error:
        raise CannotBuild(f"cannot read {file.source}: {error}") from None
    except CannotRelocate as error:
        raise CannotBuild(f"{file.source} {error}") from None


def holds_prefix(file: File, prefixes: tuple[bytes, ...], start: int) -> bool:
    """Whether the payload, from `start` on, holds one of `prefixes`."""
    with open(file.source, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return bool(pattern(prefixes).search(content, start))


def _named(text: bytes, python: bytes, new: bytes) -> bytes:
    if len(new) > len(python):
        raise CannotRelocate(f"names its Python in {len(python)} bytes, and needs {len(new)}")
    return text.replace(python, new.rjust(len(python), b"/"), 1)
