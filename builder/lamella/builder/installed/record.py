"""Read the file list of a distribution.

Sources: PyPA specifications, "Recording installed projects"; setuptools' installed-files.txt and SOURCES.txt.
"""

from __future__ import annotations

import binascii
import csv
import functools
import io
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import read_small, read_text

if TYPE_CHECKING:
    from collections.abc import ItemsView, Iterable, Iterator


_LENGTH = len("sha256=") + 43
_NO_HASH = "A" * 43
"""Decodes to zeros, which are not the sha256 of any file."""
_STANDARD = bytes.maketrans(b"-_", b"+/")
"""From the URL-safe alphabet of base64 to the usual one."""


@dataclass(frozen=True, eq=False)
class Record(Mapping[str, str]):
    """Files in a RECORD: path to sha256, as `recorded` returns them.

    Decoded on first use, since an unchanged environment is recognised by the bytes of its records. Not
    slotted: it caches what it decodes.
    """

    content: bytes
    base: str
    """Parent folder of the metadata, relative to the prefix."""
    prefixes: tuple[str, ...]

    @functools.cached_property
    def _files(self) -> dict[str, str]:
        return _resolved(_rows(self.content.decode("utf-8", "surrogateescape")), self.base, self.prefixes)

    def check(self) -> None:
        """Raise `csv.Error` if the rows cannot be read."""
        # Only quotes can be wrong.
        if b'"' in self.content:
            _ = self._files

    def __getitem__(self, path: str) -> str:
        return self._files[path]

    def __contains__(self, path: object) -> bool:
        return path in self._files

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def items(self) -> ItemsView[str, str]:
        """Pairs of path and sha256."""
        return self._files.items()


def recorded(folder: str, site: str, prefixes: Iterable[str]) -> Mapping[str, str] | None:
    """Files of the distribution whose metadata is in `folder`: path relative to the prefix to sha256.

    `site` is the path, relative to the prefix, of the parent of `folder`. A path outside the prefix stays
    absolute or begins with `..`. A hash has 64 hex digits, or is empty if it is missing or not sha256.
    None if the installer kept no list. Raises `OSError` and `csv.Error` for an unreadable list.
    """
    try:
        record = Record(read_small(os.path.join(folder, "RECORD")), site, tuple(prefixes))
        record.check()
        return record
    except (FileNotFoundError, NotADirectoryError):
        pass
    try:
        lines = read_text(os.path.join(folder, "installed-files.txt")).split("\n")
        # Paths here are relative to the metadata's own folder, unlike RECORD's.
        base = f"{site}/{os.path.basename(folder)}"
        return _resolved([(path, "") for path in lines if path], base, prefixes)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _rows(text: str) -> list[tuple[str, str]]:
    if '"' in text:
        rows = [(row[0], row[1] if len(row) > 1 else "") for row in csv.reader(io.StringIO(text)) if row and row[0]]
    else:
        # Without quotes: splitting takes a fifth of the time, and a large environment has 60,000 rows.
        split = [line.rstrip("\r").split(",") for line in text.split("\n")]
        rows = [(row[0], row[1] if len(row) > 1 else "") for row in split if row[0]]
    return list(zip([path for path, _ in rows], _hex([recorded for _, recorded in rows]), strict=True))


def _hex(recorded: list[str]) -> list[str]:
    """Convert RECORD's `sha256=` and URL-safe base64 without padding to hex digits, others to an empty string."""
    values = [each[7:] if len(each) == _LENGTH and each.startswith("sha256=") else _NO_HASH for each in recorded]
    # All at once: 43 characters and an `A`, which stands for six zero bits, are exactly 33 bytes.
    joined = ("A".join(values) + "A").encode("utf-8", "surrogateescape").translate(_STANDARD)
    try:
        raw = bytearray(binascii.a2b_base64(joined))
    except ValueError:
        raw = bytearray()
    if not values or len(raw) != 33 * len(values):
        return [""] * len(values)
    # Two bits of the 43rd character mean nothing, and need not be zero.
    raw[32::33] = bytes(len(values))
    # Separated by the conversion itself: a slice for each digest takes four times as long.
    found = raw.hex("\n", 33).replace("00\n", "\n").removesuffix("00").split("\n")
    none = "00" * 32
    return ["" if each == none else each for each in found] if none in found else found


def _resolved(rows: Iterable[tuple[str, str]], base: str, prefixes: Iterable[str]) -> dict[str, str]:
    known = [prefix.rstrip("/") + "/" for prefix in prefixes]
    found = {}
    for path, digest in rows:
        if path[0] == "/":
            inside = next((path[len(prefix) :] for prefix in known if path.startswith(prefix)), path)
            found[posixpath.normpath(inside)] = digest
        elif path[0] == "." or ".." in path or "//" in path or "/./" in path:
            found[posixpath.normpath(f"{base}/{path}")] = digest
        else:
            found[f"{base}/{path}"] = digest
    return found
