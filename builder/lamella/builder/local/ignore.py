"""Which files of a folder `.gitignore` and `.lamellaignore` leave out.

Sources: gitignore(5), "Pattern format"; git's dir.c and wildmatch.c for everything that the manual leaves open. Git matches
bytes: `?` is one byte, not one character.
"""

from __future__ import annotations

import os
import re
import string
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = (".gitignore", ".lamellaignore")

_SPECIAL = re.compile(rb"[*?\[\\]")
_NEVER = rb"(?!)"
_BOM = b"\xef\xbb\xbf"
_SLASH = ord("/")
_ALNUM = (string.ascii_letters + string.digits).encode()
_PRINTED = bytes(range(0x20, 0x7F))
_CLASSES = {
    b"alnum": _ALNUM,
    b"alpha": string.ascii_letters.encode(),
    b"blank": b" \t",
    b"cntrl": bytes((*range(0x20), 0x7F)),
    b"digit": string.digits.encode(),
    b"graph": _PRINTED[1:],
    b"lower": string.ascii_lowercase.encode(),
    b"print": _PRINTED,
    b"punct": bytes(byte for byte in _PRINTED[1:] if byte not in _ALNUM),
    b"space": b" \t\n\r\v\f",
    b"upper": string.ascii_uppercase.encode(),
    b"xdigit": string.hexdigits.encode(),
}


class Rule(NamedTuple):
    """One line of an ignore file."""

    matches: re.Pattern[bytes]
    """Matches a path relative to the folder of the ignore file, or its last part if the rule has no slash."""
    keeps: bool
    """Whether it begins with `!`."""
    folders_only: bool
    anchored: bool
    """Whether it has a slash, and so matches whole paths."""


class Ignore:
    """The rules of one tree. Ignore files are read when their folders are first asked for, from the folder `top` (the
    repository's) down."""

    def __init__(self, root: str, files: tuple[str, ...] = FILES, top: str = "") -> None:
        self._top = top or root
        self._below = os.path.relpath(root, self._top)
        self._files = files
        self._rules: dict[str, _Rules] = {}

    def ignored(self, path: str, *, folder: bool) -> bool:
        """Whether `path` (relative to the root) is left out. Assumes, as git does, that its parents are not."""
        whole = path if self._below == os.curdir else f"{self._below}/{path}"
        parent, _, name = whole.rpartition("/")
        inner = last = os.fsencode(name)
        # The last rule of the deepest ignore file decides.
        while True:
            level = self._of(parent)
            if level.names.fullmatch(last) or level.paths.fullmatch(inner):
                for rule in level.rules:
                    if (folder or not rule.folders_only) and rule.matches.fullmatch(inner if rule.anchored else last):
                        return not rule.keeps
            if not parent:
                return False
            parent, _, name = parent.rpartition("/")
            inner = os.fsencode(name) + b"/" + inner

    def _of(self, folder: str) -> _Rules:
        if folder not in self._rules:
            found: list[Rule] = []
            for name in self._files:
                try:
                    found += rules(read_small(os.path.join(self._top, folder, name)))
                except OSError:
                    continue
            self._rules[folder] = _Rules(found[::-1], _any(found, anchored=False), _any(found, anchored=True))
        return self._rules[folder]


class _Rules(NamedTuple):
    """The rules of the ignore files in one folder."""

    rules: list[Rule]
    """The last one first."""
    names: re.Pattern[bytes]
    """Matches what any rule without a slash matches: most files match none, and one expression is faster than many."""
    paths: re.Pattern[bytes]
    """The same for rules with a slash."""


def _any(rules: list[Rule], *, anchored: bool) -> re.Pattern[bytes]:
    chosen = [rule.matches.pattern for rule in rules if rule.anchored == anchored]
    return re.compile(b"|".join(chosen) or _NEVER, re.DOTALL)


def rules(content: bytes) -> Iterator[Rule]:
    """The rules in an ignore file, but those that can match nothing."""
    for line in content.removeprefix(_BOM).split(b"\n"):
        if line and not line.startswith(b"#") and (found := rule(line.removesuffix(b"\r"))):
            yield found


def rule(line: bytes) -> Rule | None:
    """The rule in a line that is not a comment, or None if it can match nothing."""
    line = _without_trailing_spaces(line)
    keeps = line.startswith(b"!")
    line = line[1:] if keeps else line
    folders_only = line.endswith(b"/")
    line = line[:-1] if folders_only else line
    pattern = _translated(line.removeprefix(b"/"))
    return Rule(re.compile(pattern, re.DOTALL), keeps, folders_only, b"/" in line) if pattern else None


def _without_trailing_spaces(line: bytes) -> bytes:
    """`line` without spaces at its end; an escaped space stays with all before it."""
    kept = at = 0
    while at < len(line):
        width = 2 if line[at : at + 1] == b"\\" else 1
        if line[at : at + 1] != b" ":
            kept = at + width
        at += width
    return line[:kept]


def _translated(glob: bytes) -> bytes | None:
    """A glob as a regular expression, or None if it can match nothing."""
    out, at = [], 0
    while at < len(glob):
        character = glob[at : at + 1]
        if character == b"*":
            end = at + 1
            while glob[end : end + 1] == b"*":
                end += 1
            found, at = _stars(glob, at, end)
        elif character == b"?":
            found, at = b"[^/]", at + 1
        elif character == b"[":
            members, at = _bracket(glob, at + 1)
            found = _any_of(members)
        elif character == b"\\":
            found, at = re.escape(glob[at + 1 : at + 2]), at + 2
        else:
            found, at = re.escape(character), at + 1
        if not found:
            return None
        out.append(found)
    return b"".join(out)


def _stars(glob: bytes, start: int, end: int) -> tuple[bytes, int]:
    """The expression for the asterisks from `start` to `end`, and where the glob goes on.

    Two or more span folders if slashes or the glob's ends enclose them. Git compares what comes before the first special
    character by itself, so that the end of that counts as the glob's beginning: `foo**/bar` matches foo/a/b/bar.
    """
    opened = start == 0 or glob[start - 1] == _SLASH or not _SPECIAL.search(glob, 0, start)
    if end - start == 1 or not opened:
        return b"[^/]*", end
    if end == len(glob) or glob.startswith(b"\\/", end):
        return b".*", end
    if glob[end] == _SLASH:
        return b"(?:.*/)?", end + 1
    return b"[^/]*", end


def _bracket(glob: bytes, at: int) -> tuple[frozenset[int], int]:
    """The bytes that a bracket expression matches, and where the glob goes on. `at` is behind the opening bracket.

    No bytes if it is not closed or names an unknown class: git takes such a pattern for one that never matches.
    """
    nothing: tuple[frozenset[int], int] = frozenset(), len(glob)
    negated = glob[at : at + 1] in {b"!", b"^"}
    at += negated
    members: set[int] = set()
    first, previous = at, 0
    while first == at or glob[at : at + 1] != b"]":
        if glob.startswith(b"[:", at):
            end = glob.find(b"]", at + 2)
            if end < 0:
                return nothing
            if end > at + 2 and glob[end - 1] == ord(":"):
                name = glob[at + 2 : end - 1]
                if name not in _CLASSES:
                    return nothing
                members.update(_CLASSES[name])
                at, previous = end + 1, 0
                continue
        spans = glob[at : at + 1] == b"-" and previous and glob[at + 1 : at + 2] not in {b"", b"]"}
        at += bool(spans)
        at += glob[at : at + 1] == b"\\"
        if at >= len(glob):
            return nothing
        members.update(range(previous, glob[at] + 1) if spans else (glob[at],))
        previous = 0 if spans else glob[at]
        at += 1
    return frozenset(range(256)) - members - {_SLASH} if negated else frozenset(members - {_SLASH}), at + 1


def _any_of(members: frozenset[int]) -> bytes:
    return b"[" + b"".join(b"\\x%02x" % byte for byte in sorted(members)) + b"]" if members else b""
