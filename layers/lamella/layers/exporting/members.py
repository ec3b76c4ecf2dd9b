"""The files and links of an export, in an order that compresses well."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from fnmatch import translate
from functools import partial
from typing import TYPE_CHECKING, Literal

from lamella.layers.relocation.move import PREFIX_FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    _Folder = dict[str, "Member | _Folder"]

Filter = tuple[Literal["exclude", "include"], str]
"""A pattern of paths, as in fnmatch: `*` also matches slashes."""

_CHUNK = 1 << 20
_BYTE_CODE = re.compile(r"(?:.*/)?__pycache__/[^/]*\.pyc")


@dataclass(frozen=True, slots=True)
class Member:
    """A file or symlink of an export."""

    path: str
    """Relative to the environment's prefix, '/' between parts."""
    mode: int
    size: int
    """Bytes; 0 for a symlink."""
    read: Callable[[], Iterable[bytes]]
    """Yields exactly `size` bytes, in pieces; may be called again."""
    target: str | None = None
    """Target of a symlink."""
    source: str = ""
    """A file on this disk with the same bytes; empty for none."""


def generated(path: str, content: bytes, mode: int = 0o644) -> Member:
    """Return a member with these bytes."""
    return Member(path, mode, len(content), lambda: (content,))


def of_folders(folders: Sequence[str], more: Iterable[Member], without: Collection[str] = ()) -> list[Member]:
    """Return the files of `folders` (lowest first) and `more`, except those at or below the paths `without`.

    If two have one path, the later one counts as a whole, as in an overlay: nothing is below a file or
    link of a later folder, so that no archive writes through a link.
    """
    root: _Folder = {}
    for folder in folders:
        _walk(folder, "", root)
    for path in without:
        _folder(root, os.path.dirname(path)).pop(os.path.basename(path), None)
    for member in more:
        _folder(root, os.path.dirname(member.path))[os.path.basename(member.path)] = member
    return list(_flat(root))


def chosen(paths: Iterable[str], filters: Sequence[Filter], *, byte_code: bool) -> set[str]:
    """Return those of `paths` that `filters`, applied in order, keep.

    `exclude` removes paths, `include` brings removed ones back, as with conda-pack. Without `byte_code`,
    byte code goes last: no pattern brings it back.
    """
    patterns = [(kind == "include", re.compile(translate(pattern))) for kind, pattern in filters]
    kept = set()
    for path in paths:
        keep = True
        for include, pattern in patterns:
            if keep != include and pattern.match(path):
                keep = include
        if keep and (byte_code or not is_byte_code(path)):
            kept.add(path)
    return kept


def is_byte_code(path: str) -> bool:
    """Whether `path` is that of a module's byte code."""
    return bool(_BYTE_CODE.fullmatch(path))


def place(path: str) -> tuple[str, str]:
    """Return the sort key of a member: files of one kind side by side compress better, byte code comes last.

    Byte code is compiled while the other files are compressed. The file of the prefix is first, since it
    tells an export from other archives.
    """
    if path == PREFIX_FILE:
        return "", ""
    name = path.rpartition("/")[2]
    if name.endswith(".pyc"):
        return "~", path
    return ("so" if ".so" in name else os.path.splitext(name)[1]), path


def _walk(folder: str, below: str, found: _Folder) -> None:
    with os.scandir(f"{folder}/{below}") as listed:
        for item in listed:
            path = f"{below}{item.name}"
            if item.is_dir(follow_symlinks=False):
                _walk(folder, f"{path}/", _inner(found, item.name))
            else:
                found[item.name] = _member(path, item)


def _member(path: str, item: os.DirEntry[str]) -> Member:
    if item.is_symlink():
        return Member(path, 0o777, 0, tuple, os.readlink(item.path))
    status = item.stat(follow_symlinks=False)
    mode = 0o755 if status.st_mode & 0o100 else 0o644
    return Member(path, mode, status.st_size, partial(_read, item.path, status.st_size), source=item.path)


def _read(path: str, size: int) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:
        while size > 0 and (piece := file.read(min(size, _CHUNK))):
            size -= len(piece)
            yield piece
    if size:
        raise OSError(f"{path}: shorter than it was")


def _folder(root: _Folder, path: str) -> _Folder:
    for name in filter(None, path.split("/")):
        root = _inner(root, name)
    return root


def _inner(found: _Folder, name: str) -> _Folder:
    inner = found.get(name)
    if not isinstance(inner, dict):
        inner = found[name] = {}
    return inner


def _flat(found: _Folder) -> Iterator[Member]:
    for item in found.values():
        if isinstance(item, dict):
            yield from _flat(item)
        else:
            yield item
