"""Files of an environment that are read whole, such as RECORD: regular files of bounded size, whatever wrote them."""

from __future__ import annotations

import errno
import importlib
import json
import os
import stat
import sys
from typing import Any

_MOST = 256 << 20
"""Bytes: RECORD has 100 for each file, and the largest packages have 100,000 files."""
_CHUNK = 1 << 20
# NONBLOCK: opening a FIFO waits for a writer, and opening a device may do anything. Windows has neither of the two, and
# translates line ends without BINARY.
READ = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
"""Flags to open a file for reading, on every system."""


def read_small(path: str, most: int | None = None) -> bytes:
    """Return the bytes of a file, or its first `most`. `OSError` if it is too large or not a regular file."""
    descriptor = os.open(path, READ)
    try:
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        left = _MOST + 1 if most is None else most
        parts = []
        while left and (part := os.read(descriptor, min(left, max(_CHUNK, seen.st_size + 1)))):
            parts.append(part)
            left -= len(part)
        if most is None and not left:
            raise OSError(errno.EFBIG, f"larger than {_MOST >> 20} MiB", path)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_text(path: str, most: int | None = None) -> str:
    """Return a file's text as `open` would, any byte kept. Raises as `read_small`."""
    text = read_small(path, most).decode("utf-8", "surrogateescape")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def read_json(path: str) -> Any:
    """Return the JSON value in a file. Raises as `read_small`, and `ValueError`."""
    try:
        return json.loads(read_small(path).decode("utf-8", "surrogateescape"))
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: str) -> dict[str, Any]:
    """Return the table in a TOML file. Raises as `read_small`, and `ValueError`."""
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = tomllib.loads(read_small(path).decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return table


def plain_text(value: object) -> str:
    """Return a value of a record as text that a document can hold; empty for a list, an object or null."""
    # Half of a surrogate pair comes from an escape in JSON, or from a byte that is not UTF-8.
    return str(value).encode("utf-8", "replace").decode() if isinstance(value, (str, int, float)) else ""
