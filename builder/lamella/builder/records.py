"""What a distribution's installer wrote down of its files.

Sources: PyPA specifications, "Recording installed projects"; setuptools' installed-files.txt and SOURCES.txt.
"""

from __future__ import annotations

import binascii
import csv
import os
import posixpath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def recorded(folder: str, site: str, prefixes: Iterable[str]) -> dict[str, str] | None:
    """The files of the distribution whose metadata is in `folder`: path relative to the prefix to sha256.

    `site` is the path, relative to the prefix, of the folder that `folder` is in. A path that leads out of the prefix
    stays absolute or begins with `..`. A hash has 64 hex digits, and is empty where none is recorded, or not sha256.
    None where the installer kept no list.
    """
    try:
        with open(os.path.join(folder, "RECORD"), encoding="utf-8", errors="surrogateescape", newline="") as lines:
            return dict(_resolved(_rows(lines), site, prefixes))
    except FileNotFoundError:
        pass
    try:
        with open(os.path.join(folder, "installed-files.txt"), encoding="utf-8", errors="surrogateescape") as lines:
            # Paths here are relative to the metadata's own folder, unlike RECORD's.
            base = f"{site}/{os.path.basename(folder)}"
            return dict(_resolved(((line.rstrip("\r\n"), "") for line in lines), base, prefixes))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _rows(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for row in csv.reader(lines):
        if row and row[0]:
            yield row[0], _hex(row[1]) if len(row) > 1 and row[1] else ""


def _hex(recorded: str) -> str:
    """RECORD's `sha256=` and URL-safe base64 without padding as hex digits."""
    try:
        algorithm, _, value = recorded.partition("=")
        if algorithm == "sha256":
            return binascii.a2b_base64(value.replace("-", "+").replace("_", "/") + "=").hex()
    except ValueError:
        pass
    return ""


def _resolved(rows: Iterable[tuple[str, str]], base: str, prefixes: Iterable[str]) -> Iterator[tuple[str, str]]:
    known = [prefix.rstrip("/") + "/" for prefix in prefixes]
    for path, digest in rows:
        if path[0] == "/":
            inside = next((path[len(prefix) :] for prefix in known if path.startswith(prefix)), path)
            yield posixpath.normpath(inside), digest
        elif ".." in path or "//" in path or path[0] == ".":
            yield posixpath.normpath(f"{base}/{path}"), digest
        else:
            yield f"{base}/{path}", digest
