"""Moves an environment's files to another prefix than the one that they hold.

Each package lists its files that hold the prefix in `.lamella/relocate/<origin>-<name>.json`, below the prefix:
`{"prefix": "/opt/env", "files": [{"path": "bin/pip", "kind": "text"}]}`, paths relative to the prefix. Text is
replaced as text. In binaries a C string keeps its place and ends in more NULs; it can grow only into the NULs that
were put behind it when a longer prefix was replaced: conda's placeholder, or one of `"room"` bytes. A text with a
`"payload"` ends in binary data: of a `"zip"` archive the offsets are moved, before any other data (`"fixed"`) the text
keeps its length, since the prefix is written with more slashes.

This file goes into exported environments as it is, and runs there with whatever Python they hold: it imports the
standard library alone, and reads on Python 3.7.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Iterable, Iterator, Mapping

LISTS = ".lamella/relocate"
INTERPRETER = "python-python.json"
"""The interpreter's list. It finds its prefix by where it is, so that one in its binaries may stay wrong."""

# A shebang line that Linux reads whole on every version; longer ones are cut, and blanks end the program's name.
_MAX_SHEBANG = 127
MOVING = ".lamella/moving"
"""A move that is under way, or was cut short: new files by number, and `complete`, which lists their paths."""
LOCK = ".lamella/lock"
PREFIX_FILE = ".lamella/prefix"
"""In an export, the prefix that its files name. Written last: who finds it right finds all of them right."""
_OF_ALL = re.compile(
    "/|/(?:bin|dev|etc|home|lib|lib64|opt|proc|root|run|sbin|sys|tmp|var|var/tmp)|/usr(?:/local)?(?:/(?:bin|lib|sbin|share))?"
)
_MAX_LIST = 64 << 20
"""Bytes of one list: the largest packages list some 10,000 files, of 100 bytes each."""
_MAX_FILE = 1 << 30
"""Bytes of a file that holds a prefix; it is rewritten in memory."""
_PLACEHOLDER = 255
"""Bytes of the prefix that conda-build builds with (conda_build.environ, PREFIX_LENGTH)."""


class CannotRelocate(Exception):
    """A file or a prefix that can't be changed as requested; the message names it."""


def pattern(prefix: bytes, *, slashes: bool = False) -> re.Pattern[bytes]:
    """Matches `prefix` as a whole path: the packer's rule (lamella.builder.files.prefix_pattern), which a test holds equal.

    With `slashes`, those in front of it too.
    """
    if slashes:
        before = rb"(?:(?<![\w.~+\-/\x80-\xff])|(?<=-[A-Za-z])|(?<=://)|(?<=[^\w.~+\-/\x80-\xff]\.))/*"
        whole = before + re.escape(prefix)
    else:
        before = rb"%b(?:(?<![\w.~+\-/\x80-\xff]%b)|(?<=-[A-Za-z]%b)|(?<=://%b)|(?<=[^\w.~+\-/\x80-\xff]\.%b))"
        whole = before % (5 * (re.escape(prefix),))
    return re.compile(b"(?:" + whole + rb")(?![\w.~+@%\-\x80-\xff])")


def check_path(prefix: str) -> None:
    """Raise `CannotRelocate` unless `prefix` is an absolute path in its one spelling."""
    if not re.fullmatch(r"(?:/[^/]+)+", prefix) or {".", ".."} & set(prefix.split("/")):
        raise CannotRelocate(
            f"{prefix!r}: not usable as a prefix; use an absolute path without //, /./, /../ or a trailing /"
        )


def check_prefix(prefix: str) -> None:
    """Raise `CannotRelocate` for a path that files can't hold, or that would not be found in them again."""
    if _OF_ALL.fullmatch(prefix):
        raise CannotRelocate(
            f"{prefix}: not usable as a prefix, files name it for the system's own paths; "
            "use a folder of the environment's own"
        )
    check_path(prefix)
    if re.search("[\"'$`\\\\\x00-\x1f]", prefix):
        raise CannotRelocate(
            f"{prefix!r}: not usable as a prefix, scripts would misread quotes, $, backslashes or newlines"
        )


def lists(folder: str) -> list[str]:
    """The names of the lists in an environment's, or a layer's, folder, sorted; `CannotRelocate` for a link to some."""
    path = folder
    for name in LISTS.split("/"):
        path += "/" + name
        try:
            if stat.S_ISLNK(os.lstat(path).st_mode):
                raise CannotRelocate(f"{path}: is a link; lists of files are not read through links")
        except OSError:
            return []
    return sorted(name for name in os.listdir(path) if name.endswith(".json"))


def relocate(folder: str, prefix: str, write: Callable[[str, bytes, int], object]) -> str:
    """Give `write` each file of `folder` that holds another prefix, as (path, content, mode) for `prefix`.

    The lists are among them: they name the new prefix then. Gives the prefix that was held, the last list's.
    """
    check_prefix(prefix)
    held = prefix
    # A hostile list may name one file thousands of times, each of which would be a copy of it.
    seen: set[str] = set()
    for name in lists(folder):
        path = LISTS + "/" + name
        listed = _read_list(_inside(folder, path))
        held = listed["prefix"]
        if held == prefix:
            continue
        for entry in listed["files"]:
            if entry["path"] in seen:
                continue
            seen.add(entry["path"])
            if name.startswith("conda-"):
                entry.setdefault("room", _PLACEHOLDER)
            if not os.path.lexists(os.path.join(folder, entry["path"])):
                continue  # who uninstalled it did not know of the list
            source = _inside(folder, entry["path"])
            with open(source, "rb") as file:
                opened = os.fstat(file.fileno())
                if opened.st_size > _MAX_FILE:
                    raise CannotRelocate(
                        f"{entry['path']}: {opened.st_size} bytes, too large to be rewritten in memory"
                    )
                content = file.read()
                mode = opened.st_mode & 0o777
            try:
                changed = rewrite(content, entry, os.fsencode(held), os.fsencode(prefix))
            except CannotRelocate as error:
                if name != INTERPRETER:
                    raise CannotRelocate(f"{entry['path']} {error}: choose a shorter path than {prefix}") from None
                continue
            write(entry["path"], changed, mode)
        listed["prefix"] = prefix
        write(path, json.dumps(listed, sort_keys=True).encode() + b"\n", 0o644)
    return held


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


def zip_archive(content: bytes | mmap.mmap) -> tuple[int, list[tuple[int, int]]] | None:
    """Where the zip archive at the end of `content` begins, and its fields that count from the start of `content`.

    A field is (position, bytes). An archive that counts from its own start has none. None without an archive. Source:
    PKWARE's APPNOTE.TXT, 4.3.12 to 4.3.16 and 4.5.3.
    """
    end = content.rfind(b"PK\5\6", max(0, len(content) - 22 - 0xFFFF))
    try:
        if end < 0 or end + 22 + struct.unpack_from("<H", content, end + 20)[0] != len(content):
            return None
        size, offset = struct.unpack_from("<II", content, end + 12)
        fields = [(end + 16, 4)]
        if content[end - 20 : end - 16] == b"PK\6\7" and content[end - 76 : end - 72] == b"PK\6\6":
            size, offset = struct.unpack_from("<QQ", content, end - 36)
            in_both = struct.unpack_from("<I", content, end + 16)[0] == offset
            fields = [(end - 12, 8), (end - 28, 8), *(fields if in_both else ())]
            end -= 76
        at = end - size
        before = at - offset
        if before < 0 or at < 0:
            return None
        first = offset
        while at < end:
            if content[at : at + 4] != b"PK\1\2":
                return None
            name, extra, note = struct.unpack_from("<HHH", content, at + 28)
            field = _local_offset(content, at, at + 46 + name, extra)
            fields.append(field)
            first = min(first, int.from_bytes(content[field[0] : field[0] + field[1]], "little"))
            at += 46 + name + extra + note
    except struct.error:
        return None
    return first + before, [] if before else fields


def _local_offset(content: bytes | mmap.mmap, entry: int, extra: int, size: int) -> tuple[int, int]:
    """The field of a directory's entry that says where its file is."""
    packed, unpacked = struct.unpack_from("<II", content, entry + 20)
    (offset,) = struct.unpack_from("<I", content, entry + 42)
    at = extra
    while offset == 0xFFFFFFFF and at + 4 <= extra + size:
        kind, length = struct.unpack_from("<HH", content, at)
        if kind == 1:
            return at + 4 + 8 * (packed == 0xFFFFFFFF) + 8 * (unpacked == 0xFFFFFFFF), 8
        at += 4 + length
    return entry + 42, 4


def moved_fields(content: bytes | mmap.mmap, fields: Iterable[tuple[int, int]], by: int) -> list[tuple[int, bytes]]:
    """The `fields` of a zip archive, each with `by` added, as (position, bytes)."""
    result = []
    for at, size in fields:
        value = int.from_bytes(content[at : at + size], "little") + by
        if not 0 <= value < 1 << 8 * size:
            raise CannotRelocate(f"holds a zip archive that cannot move by {by} bytes")
        result.append((at, value.to_bytes(size, "little")))
    return sorted(result)


def moved(content: bytes, start: int, fields: Iterable[tuple[int, bytes]]) -> bytes:
    """`content`, which begins at `start`, with the bytes of `fields` at their positions."""
    parts = []
    at = 0
    for position, value in fields:
        parts += [content[at : position - start], value]
        at = position - start + len(value)
    return b"".join([*parts, content[at:]])


def _rewrite_text(content: bytes, old: bytes, new: bytes) -> bytes:
    find = pattern(old)
    first, end, rest = content.partition(b"\n")
    return _shebang(first, find, old, new) + end + find.sub(lambda _: new, rest)


def move(folder: str, prefix: str) -> int:
    """Make the environment in `folder` one for `prefix`, in place; return the number of files that were changed.

    New files are written whole beside the old ones before the first of these is replaced: a crash leaves what the
    next call finishes, or what it begins again. Of several processes, one moves and the others wait for it. Raises
    `CannotRelocate`, also for a folder that can't be changed.
    """
    check_prefix(prefix)
    try:
        with _alone(folder):
            # An interrupted move may have had another target: it is finished first, and the tree is moved from there.
            changed = _finish(folder)
            _begin(folder, prefix)
            return changed + _finish(folder)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        if not os.path.lexists(os.path.join(folder, MOVING)) and not _is_changed(folder, prefix):
            return 0
        todo = "have it there" if error.errno == errno.EROFS else "let its owner run bin/lamella-unpack"
        raise CannotRelocate(
            f"{folder} can't be changed ({error.strerror}), and is made for {_held(folder)}: {todo}, or copy it to a folder "
            "that can be written"
        ) from error


@contextlib.contextmanager
def _alone(folder: str) -> Iterator[None]:
    import fcntl

    if not lists(folder):
        yield  # there is nothing to move
        return
    lock = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        # Not every network file system has locks; without one, two moves at the same time are as they were.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _begin(folder: str, prefix: str) -> None:
    import shutil

    moving = os.path.join(folder, MOVING)
    shutil.rmtree(moving, ignore_errors=True)
    paths: list[str] = []

    def write(path: str, content: bytes, mode: int) -> None:
        if not paths:
            os.mkdir(moving)
        beside = os.path.join(moving, str(len(paths)))
        with open(beside, "wb") as file:
            file.write(content)
        os.chmod(beside, mode)
        paths.append(path)

    complete = os.path.join(moving, "complete")
    try:
        relocate(folder, prefix, write)
        if paths:
            with open(complete + ".new", "w", encoding="utf-8") as file:
                json.dump(paths, file)
            os.rename(complete + ".new", complete)
    except BaseException:
        shutil.rmtree(moving, ignore_errors=True)
        raise


def _finish(folder: str) -> int:
    """Put the new files of a complete move in their places; their number, 0 without such a move."""
    import shutil

    moving = os.path.join(folder, MOVING)
    try:
        with open(os.path.join(moving, "complete"), encoding="utf-8") as file:
            paths: list[str] = json.load(file)
    except FileNotFoundError:
        return 0
    for number, path in sorted(enumerate(paths), key=lambda item: item[1] == PREFIX_FILE):
        beside = os.path.join(moving, str(number))
        # Files that were removed since the crash stay away.
        if os.path.exists(beside) and os.path.lexists(os.path.join(folder, path)):
            os.replace(beside, _inside(folder, path))
    shutil.rmtree(moving)
    return len(paths)


def _is_changed(folder: str, prefix: str) -> bool:
    paths: list[str] = []
    relocate(folder, prefix, lambda path, *_: paths.append(path))
    return bool(paths)


def _held(folder: str) -> str:
    try:
        with open(os.path.join(folder, PREFIX_FILE), encoding="utf-8", errors="surrogateescape") as file:
            return file.read().strip()
    except OSError:
        return "another folder"


def _read_list(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            content = file.read(_MAX_LIST + 1)
        if len(content) > _MAX_LIST:
            raise ValueError
        listed = json.loads(content.decode("utf-8"))
        if not os.fsencode(listed["prefix"]).startswith(b"/") or not all(
            isinstance(entry["path"], str) and entry["kind"] in ("text", "binary") for entry in listed["files"]
        ):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CannotRelocate(f"{path}: not a list of files that hold a prefix") from None
    return listed  # type: ignore[no-any-return]


def _inside(folder: str, path: str) -> str:
    # A list comes from the layer's publisher: neither .. nor a link may lead this to files elsewhere.
    found = folder + "/" + path
    try:
        inside = os.path.realpath(found) == os.path.realpath(folder) + "/" + path and os.path.isfile(found)
    except ValueError:  # a NUL, half a surrogate pair
        inside = False
    if not inside:
        raise CannotRelocate(f"{path!r}: in a list of files that hold the prefix, but not a file of the environment")
    return found


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
