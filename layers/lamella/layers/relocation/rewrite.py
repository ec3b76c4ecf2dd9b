"""Rewrite one file: text, the strings of a binary, a text with binary data behind it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.relocation.prefixes import CannotRelocate, pattern
from lamella.layers.relocation.zip_payload import moved, moved_fields, zip_archive

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping

# A shebang line that Linux reads whole on every version; longer ones are cut, and blanks end the program's name.
_MAX_SHEBANG = 127


def rewrite(content: bytes, entry: Mapping[str, object], old: bytes, new: bytes) -> bytes:
    """One listed file's bytes with `new` where they hold `old`."""
    if entry["kind"] == "binary":
        return _rewrite_strings(content, entry, old, new)
    if entry.get("payload") == "fixed":
        end = content.find(b"\0") if b"\0" in content else len(content)
        return same_length(content[:end], [old], new) + content[end:]
    if entry.get("payload") == "zip":
        archive = zip_archive(content)
        if archive is None:
            raise CannotRelocate("is listed as a script with a zip archive, and has none")
        start, fields = archive
        text = _rewrite_text(content[:start], old, new)
        return text + moved(content[start:], start, moved_fields(content, fields, len(text) - start))
    return _rewrite_text(content, old, new)


def same_length(text: bytes, old: Iterable[bytes], new: bytes) -> bytes:
    """`text` with `new` in place of each of `old`, behind as many more slashes as keep the length."""

    def replaced(match: re.Match[bytes]) -> bytes:
        if len(new) > len(match[0]):
            raise CannotRelocate(f"holds the prefix in {len(match[0])} bytes, and needs {len(new)}")
        return new.rjust(len(match[0]), b"/")

    for prefix in old:
        text = pattern(prefix, slashes=True).sub(replaced, text)
    return text


def _rewrite_text(content: bytes, old: bytes, new: bytes) -> bytes:
    find = pattern(old)
    first, end, rest = content.partition(b"\n")
    return _shebang(first, find, old, new) + end + find.sub(lambda _: new, rest)


def _shebang(line: bytes, find: re.Pattern[bytes], old: bytes, new: bytes) -> bytes:
    if not line.startswith(b"#!"):
        return find.sub(lambda _: new, line)
    program, _, arguments = line[2:].strip().partition(b" ")
    if not program.startswith(old + b"/"):
        return find.sub(lambda _: new, line)
    program = new + program[len(old) :]
    simple = b" ".join(filter(None, (b"#!" + program, arguments)))
    if len(simple) <= _MAX_SHEBANG and b" " not in program:
        return simple
    if os.path.basename(program).startswith(b"python"):
        # For sh a command, for Python a string: the form that pip writes.
        call = b" ".join(filter(None, (b'"' + program + b'"', arguments)))
        return b"#!/bin/sh\n'''exec' " + call + b' "$0" "$@"\n' + b"' '''"
    return b"#!/usr/bin/env " + os.path.basename(program)


def _rewrite_strings(content: bytes, entry: Mapping[str, object], old: bytes, new: bytes) -> bytes:
    find = pattern(old)
    room = entry.get("room")
    parts = []
    at = 0
    for match in find.finditer(content):
        if match.start() < at:
            continue
        start = content.rfind(b"\0", at, match.start()) + 1 or at
        end = content.find(b"\0", match.end())
        end = len(content) if end < 0 else end
        string = content[start:end]
        changed, count = find.subn(lambda _: new, string)
        capacity = len(string)
        if isinstance(room, int) and room > len(old):
            capacity += max(0, min(count * (room - len(old)), _nuls(content, end) - 1))
        if len(changed) > capacity:
            raise CannotRelocate(f"holds the prefix in {capacity} bytes, and needs {len(changed)}")
        size = max(len(changed), len(string))
        parts += [content[at:start], changed.ljust(size, b"\0")]
        at = start + size
    return b"".join([*parts, content[at:]])


def _nuls(content: bytes, at: int) -> int:
    end = at
    while end < len(content) and not content[end]:
        end += 1
    return end - at
