"""Identify the code that decides a layer's bytes, so that answers of other code are not reused.

That code is the room `content/` with every module of the project that it imports, found by following
imports. Parsing takes 20 ms, so the list is remembered: while the listed files have the same bytes, they
import the same modules.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import threading
from typing import TYPE_CHECKING, Protocol

import lamella.layers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_ROOM = "lamella.builder.content"
# CPython 3.11 counts an AST's depth for all threads together: "AST constructor recursion depth mismatch".
_PARSING = threading.Lock()


class Notes(Protocol):
    """Answers kept for later pushes, of this process or another."""

    def note(self, name: str) -> bytes | None:
        """Answer kept under `name`, or None."""

    def keep_note(self, name: str, content: bytes) -> None:
        """Keep an answer."""


class Remembered:
    """Answers in `notes` from exactly this code; `content.package.Measurements` for files that it rewrites.

    `folders` are those of the namespace package `lamella`.
    """

    def __init__(self, notes: Notes, folders: Sequence[str] = ()) -> None:
        self._notes = notes
        self._code = code_fingerprint(notes, tuple(folders or lamella.__path__))

    def note(self, name: str) -> bytes | None:
        """Answer kept under `name`, or None."""
        return self._notes.note(f"{self._code} {name}")

    def keep_note(self, name: str, content: bytes) -> None:
        """Keep an answer."""
        self._notes.keep_note(f"{self._code} {name}", content)

    def measured(self, name: str) -> tuple[str, int] | None:
        """sha256 and size of a rewritten file, or None."""
        try:
            digest, size = (self.note(name) or b"").decode().split()
            return digest, int(size)
        except ValueError:
            return None

    def remember(self, name: str, digest: str, size: int) -> None:
        """Keep the sha256 and size of a rewritten file."""
        self.keep_note(name, f"{digest} {size}".encode())


def code_fingerprint(notes: Notes, folders: Sequence[str]) -> str:
    """Return 64 hex digits over the code that decides a layer's bytes; `notes` keep the list of its modules."""
    name = f"code {' '.join(folders)}"
    try:
        listed, digest = json.loads(notes.note(name) or b"null")
        if set(_room(folders)) <= set(listed) and fingerprint_of({path: _source(path) for path in listed}) == digest:
            return str(digest)
    except (OSError, ValueError, TypeError):
        pass
    found = sources(folders)
    digest = fingerprint_of(found)
    notes.keep_note(name, json.dumps([list(found), digest]).encode())
    return digest


def fingerprint_of(found: dict[str, bytes]) -> str:
    """Return 64 hex digits over the bytes of `found`. Paths do not count: another installation has the same fingerprint."""
    return hashlib.sha256(
        "\n".join(sorted(hashlib.sha256(each).hexdigest() for each in found.values())).encode()
    ).hexdigest()


def sources(folders: Sequence[str]) -> dict[str, bytes]:
    """Path to bytes, for every module of `content/` and every module that these import when they run.

    `folders` are those of the namespace package `lamella`.
    """
    found: dict[str, bytes] = {}
    pending = _room(folders)
    while pending:
        path = pending.pop()
        if path not in found:
            found[path] = _source(path)
            for name in _imports(found[path]):
                pending += _files(name, folders)
    return dict(sorted(found.items()))


def _room(folders: Sequence[str]) -> list[str]:
    """Modules of `content/`, including its worker, which is run and never imported."""
    room = next(filter(os.path.isdir, (_path(folder, _ROOM) for folder in folders)))
    return [os.path.join(room, name) for name in sorted(os.listdir(room)) if name.endswith(".py")]


def _imports(source: bytes) -> Iterator[str]:
    """Names of the project that a module imports, also in functions, except for annotations."""
    with _PARSING:
        pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lamella."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("lamella."):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
        elif not isinstance(node, ast.expr):
            pending += ast.iter_child_nodes(node)


def _files(name: str, folders: Sequence[str]) -> list[str]:
    """Files that Python reads to import `name`: a module, or a name in one, and the packages above it."""
    found = []
    parts = name.split(".")
    for end in range(2, len(parts) + 1):
        paths = [_path(folder, ".".join(parts[:end])) for folder in folders]
        candidates = [candidate for path in paths for candidate in (f"{path}.py", os.path.join(path, "__init__.py"))]
        found += [candidate for candidate in candidates if os.path.isfile(candidate)]
    return found


def _path(folder: str, name: str) -> str:
    return os.path.join(folder, *name.split(".")[1:])


def _source(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
