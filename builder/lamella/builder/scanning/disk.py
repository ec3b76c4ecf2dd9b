"""Questions to this disk beyond the walk, noted with their answers: while these hold, a scan need not be repeated."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING, Any

from lamella.builder.files.content_cache import is_settled
from lamella.builder.files.content_listing import identity
from lamella.builder.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Noted = Mapping[str, Mapping[str, Any]]
    """Kind of question to path to answer, as JSON has them."""


class Disk:
    """Answers questions about paths, and notes them. Each is asked once."""

    def __init__(self) -> None:
        self.began = time.time_ns()
        """Before every answer."""
        self._noted: dict[str, dict[str, Any]] = {kind: {} for kind in _ANSWERS}
        self._seen: list[os.stat_result] = []

    @property
    def noted(self) -> Noted:
        """Every question with its answer."""
        return self._noted

    def is_file(self, path: str) -> bool:
        """Whether `path` is a regular file, or a link to one."""
        return bool(self._answer("is_file", path))

    def real(self, path: str) -> str:
        """Resolve the links in `path`, as `os.path.realpath` does."""
        return str(self._answer("real", path))

    def names(self, folder: str) -> list[str]:
        """Sorted names in `folder`; empty if it cannot be listed."""
        return list(self._answer("names", folder))

    def stat(self, path: str) -> os.stat_result:
        """Return the stat of a file, by which a change of its bytes is noticed. Raises `OSError`."""
        seen = os.stat(path)
        self._noted["identity"][path] = [*identity(seen)]
        self._seen.append(seen)
        return seen

    def read(self, path: str) -> bytes:
        """Return the bytes of a small file. Raises `OSError`."""
        self._noted["digest"][path] = ""
        content = read_small(path)
        self._noted["digest"][path] = _sha256(content)
        return content

    def is_settled(self) -> bool:
        """Whether any change since `began`, of the files whose stat was asked for, changes their stat."""
        return all(is_settled(seen, self.began) for seen in self._seen)

    def _answer(self, kind: str, path: str) -> Any:
        answers = self._noted[kind]
        if path not in answers:
            answers[path] = _ANSWERS[kind](path)
        return answers[path]


def still_holds(noted: Noted) -> bool:
    """Whether this disk gives every answer that it gave then."""
    return all(_ANSWERS[kind](path) == answer for kind, answers in noted.items() for path, answer in answers.items())


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _identity(path: str) -> list[int] | None:
    try:
        return [*identity(os.stat(path))]
    except OSError:
        return None


def _digest(path: str) -> str:
    try:
        return _sha256(read_small(path))
    except OSError:
        return ""


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


_ANSWERS: dict[str, Callable[[str], Any]] = {
    "is_file": os.path.isfile,
    "real": os.path.realpath,
    "names": _names,
    "identity": _identity,
    "digest": _digest,
}
