"""Which files of a folder `.gitignore` and `.lamellaignore` leave out. Source: gitignore(5), "Pattern format"."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

FILES = (".gitignore", ".lamellaignore")


class Rule(NamedTuple):
    """One line of an ignore file."""

    matches: re.Pattern[str]
    """Of a path relative to the folder of the ignore file."""
    keeps: bool
    """Whether it begins with `!`."""
    folders_only: bool


class Ignore:
    """The rules of one tree; its ignore files are read as its folders are entered, and those of the folders above it
    from `top` on: the repository's."""

    def __init__(self, root: str, files: tuple[str, ...] = FILES, top: str = "") -> None:
        self._top = top or root
        self._below = os.path.relpath(root, self._top)
        self._files = files
        self._rules: dict[str, list[Rule]] = {}

    def ignored(self, path: str, *, folder: bool) -> bool:
        """Whether `path` (relative to the root) is left out. Its parents are taken as not ignored, as git has it."""
        decided = False
        parent = ""
        inner = path if self._below == os.curdir else f"{self._below}/{path}"
        while True:
            for rule in self._of(parent):
                if (folder or not rule.folders_only) and rule.matches.fullmatch(inner):
                    decided = not rule.keeps
            first, slash, inner = inner.partition("/")
            if not slash:
                return decided
            parent = f"{parent}/{first}" if parent else first

    def _of(self, folder: str) -> list[Rule]:
        if folder not in self._rules:
            self._rules[folder] = rules = []
            for name in self._files:
                try:
                    with open(
                        os.path.join(self._top, folder, name), encoding="utf-8", errors="surrogateescape"
                    ) as lines:
                        rules += [found for line in lines if (found := rule(line.rstrip("\r\n")))]
                except OSError:
                    continue
        return self._rules[folder]


def rule(line: str) -> Rule | None:
    """A line of an ignore file; None for a blank one or a comment."""
    if not line.strip() or line.startswith("#"):
        return None
    line = re.sub(r"(?<!\\)\s+$", "", line)
    keeps = line.startswith("!")
    line = line[1:] if keeps else line
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    try:
        pattern = _translated(line) if anchored else f"(?:.*/)?{_translated(line)}"
        return Rule(re.compile(pattern, re.DOTALL), keeps, folders_only)
    except re.error:
        return None  # such as [z-a]: matches nothing, as with git


def _translated(glob: str) -> str:
    """A glob as a regular expression: `*` and `?` stop at slashes, `**` does not."""
    out, at = [], 0
    while at < len(glob):
        if glob.startswith("**/", at) and (at == 0 or glob[at - 1] == "/"):
            out.append("(?:.*/)?")
            at += 3
        elif glob[at:] == "**" and (at == 0 or glob[at - 1] == "/"):
            out.append(".+")
            at += 2
        elif glob[at] == "*":
            out.append("[^/]*")
            at += 1
        elif glob[at] == "?":
            out.append("[^/]")
            at += 1
        elif glob[at] == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", "\\\\")
            out.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
            at = end + 1
        elif glob[at] == "\\" and at + 1 < len(glob):
            out.append(re.escape(glob[at + 1]))
            at += 2
        else:
            out.append(re.escape(glob[at]))
            at += 1
    return "".join(out)
