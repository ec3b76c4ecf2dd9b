"""Places of C headers, which a venv keeps in another folder than a plain prefix."""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lamella.builder.environment import File

VENV_HEADERS = "include/site/"
"""Folder of headers in a venv."""
_VENV_HEADERS = re.compile(r"include/site/(python3\.\d+t?)/")


def canonical_place(file: File) -> tuple[str, str | None]:
    """Path and target of a header, in the folder that sysconfig names for a plain prefix.

    A venv has another folder for headers.
    """
    # Most files begin otherwise: a comparison takes a third of the time of an expression.
    match = file.path.startswith("include/") and _VENV_HEADERS.match(file.path)
    if not match:
        return file.path, file.target
    path = f"include/{match[1]}/{file.path[match.end() :]}"
    if file.target is None:
        return path, None
    led_to = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), file.target))
    other = _VENV_HEADERS.match(led_to)
    led_to = f"include/{other[1]}/{led_to[other.end() :]}" if other else led_to
    return path, posixpath.relpath(led_to, posixpath.dirname(path))
