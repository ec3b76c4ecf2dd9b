"""requirements.txt: its options and its pinned requirements with hashes. Source: pip's "Requirements File Format"."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import read_text
from lamella.builder.indexes.settings_files import InvalidIndexSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST = 20
"""Files that include each other."""
_SHORT = {"-i": "index-url", "-f": "find-links", "-r": "requirement", "-c": "constraint", "-e": "editable"}
_COMMENT = re.compile(r"(?:^|\s)#.*$")


def options_in(path: str) -> list[tuple[str, str]]:
    """Return the options of a requirements file and of those that it includes, in order; empty without the file."""
    return [(name, value) for name, value in _lines(path, 0) if name]


def requirements_in(path: str) -> list[str]:
    """Return the requirements of a file and of those that it includes, each with its `--hash` options."""
    return [value for name, value in _lines(path, 0) if not name]


def _lines(path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise InvalidIndexSettings(f"{path}: includes itself; correct it")
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        return
    except OSError as error:
        raise InvalidIndexSettings(f"{path}: cannot be read: {error.strerror}; correct it") from None
    for number, line in _logical(text):
        if not line.startswith("-"):
            yield "", line
            continue
        try:
            words = shlex.split(line)
        except ValueError:
            raise InvalidIndexSettings(f"{path}, line {number}: quotes are not closed; correct it") from None
        name, _, value = words[0].partition("=")
        name = _SHORT.get(name, name.lstrip("-"))
        value = value or " ".join(words[1:])
        if name in ("requirement", "constraint"):
            if value and "://" not in value:
                included = os.path.join(os.path.dirname(path), value)
                yield from (each for each in _lines(included, depth + 1) if each[0] or name == "requirement")
        else:
            yield name, value


def _logical(text: str) -> Iterator[tuple[int, str]]:
    pending, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first if pending else number
        if line.endswith("\\") and not line.lstrip().startswith("#"):
            pending += f"{line[:-1]} "
            continue
        whole = _COMMENT.sub("", pending + line).strip()
        pending = ""
        if whole:
            yield first, whole
    if pending.strip():
        yield first, pending.strip()
