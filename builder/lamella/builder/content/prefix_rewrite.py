"""Replace the source prefix by the image prefix: in text as text, in binaries padded with NULs as conda does.

See `prefix_pattern.pattern` for what counts as an occurrence. Streams are rewritten in bounded memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.errors import CannotBuild
from lamella.builder.files.prefix_pattern import MARGIN, pattern

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator

_LONGEST_STRING = 16 << 20


def rewrite_text(chunks: Iterable[bytes], prefixes: tuple[bytes, ...], target: bytes) -> Iterator[bytes]:
    """Replace every occurrence of one of `prefixes` in `chunks` by `target`."""
    find = pattern(prefixes)
    keep = max(map(len, prefixes)) + MARGIN
    done = b""  # the last bytes of the output: a match looks back at them
    pending = b""
    for chunk in chunks:
        pending += chunk
        # A match that begins closer to the end may turn out a longer name, or half of a longer prefix.
        end = len(pending) - keep
        if end <= 0:
            continue
        text, end = _replaced(find, done, pending, end, target)
        yield text
        done = (done + pending[:end])[-MARGIN:]
        pending = pending[end:]
    if pending:
        yield _replaced(find, done, pending, len(pending), target)[0]


def _replaced(find: re.Pattern[bytes], done: bytes, pending: bytes, end: int, target: bytes) -> tuple[bytes, int]:
    """Rewrite `pending[:end]`; move `end` behind a match that begins before it."""
    window = done + pending
    limit = len(done) + end
    parts = []
    at = len(done)
    for match in find.finditer(window, at):
        if match.start() >= limit:
            break
        parts += [window[at : match.start()], target]
        at = match.end()
    last = max(limit, at)
    return b"".join([*parts, window[at:last]]), last - len(done)


def rewrite_binary(
    chunks: Iterable[bytes], prefixes: tuple[bytes, ...], target: bytes, *, name: str, padded: bool
) -> Iterator[bytes]:
    """Replace the prefix inside C strings of `chunks`, keeping their size: shorter ones end in more NULs.

    With `padded`, the file was installed from a placeholder longer than any prefix (a conda package):
    a string may grow into the NULs behind it. Raises `CannotBuild` if `target` has no room.
    """
    find = pattern(prefixes)
    pending = b""
    for chunk in chunks:
        pending += chunk
        # A string ends at its NUL, and its room at the last NUL: neither is known before the byte after it.
        end = pending.rfind(b"\0", 0, len(pending.rstrip(b"\0"))) + 1
        if not end and len(pending) > _LONGEST_STRING:
            if find.search(pending):
                raise CannotBuild(f"{name}: holds the environment's prefix in data without C strings; leave it out")
            end = len(pending) - max(map(len, prefixes)) - MARGIN
        if end > 0:
            yield _strings_replaced(find, pending[:end], target, name, padded)
            pending = pending[end:]
    if pending:
        yield _strings_replaced(find, pending, target, name, padded)


def _strings_replaced(find: re.Pattern[bytes], content: bytes, target: bytes, name: str, padded: bool) -> bytes:
    parts = []
    at = 0
    for match in find.finditer(content):
        if match.start() < at:
            continue
        start = content.rfind(b"\0", 0, match.start()) + 1
        end = content.find(b"\0", match.end())
        end = len(content) if end < 0 else end
        string = content[start:end]
        new = _replaced(find, b"", string, len(string), target)[0]
        nuls = len(content[end:]) - len(content[end:].lstrip(b"\0")) if padded and len(new) > len(string) else 0
        # The last NUL ends the string and must stay.
        room = len(string) + max(0, nuls - 1)
        if len(new) > room:
            raise CannotBuild(
                f"{name}: no room for {target.decode('utf-8', 'replace')} in a string of {len(string)} bytes, which "
                f"then needs {len(new)}; choose a shorter image prefix"
            )
        parts += [content[at:start], new.ljust(len(string), b"\0")]
        at = max(end, start + len(new))
    return b"".join([*parts, content[at:]])
