"""The interpreter as a package: its executable, its library, its standard library and headers.

A venv borrows them from its base interpreter; on a node they are part of the environment, as with conda.
"""

from __future__ import annotations

import fnmatch
import os
from typing import TYPE_CHECKING

from lamella.builder.prefix.locate import SHARED
from lamella.builder.prefix.venv import CONFIGURATION
from lamella.builder.prefix.walk import FoundFile, Tree, find_file, walk

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder.prefix.interpreter import InterpreterFacts

_TESTS = frozenset(
    {
        "test",
        "idlelib/idle_test",
        "lib2to3/tests",
        "unittest/test",
        "distutils/tests",
        "sqlite3/test",
        "ctypes/test",
        "tkinter/test",
    }
)
_SITES = frozenset({"site-packages", "dist-packages"})
_BESIDE = ("tcl[0-9]*", "tk[0-9]*", "itcl[0-9]*", "thread[0-9]*")
"""Files for tkinter in the lib folder of a standalone build."""


def stdlib_skip(stdlib: str, *, sites: bool) -> Callable[[str, str], str | None]:
    """Return a function for the reason to leave out a path below `stdlib` (relative to the prefix), or None.

    `sites`: whether to leave out its site-packages.
    """
    start = len(stdlib) + 1

    def skip(path: str, name: str) -> str | None:
        if not path.startswith(stdlib + "/"):
            return None
        inner = path[start:]
        if inner in _TESTS:
            return "tests of the standard library"
        if inner in _SITES and sites:
            return "belongs to the base interpreter, not to this environment"
        if inner == "EXTERNALLY-MANAGED":
            return "describes the system's Python, not this environment"
        if inner.startswith("config-") and name.startswith("libpython"):
            return "only needed to build programs that embed Python"
        return None

    return skip


def borrowed(facts: InterpreterFacts) -> Tree:
    """Files of the base interpreter, at their places in an environment with its own interpreter."""
    stdlib = f"lib/python{facts.short}"
    tree = walk(facts.stdlib, stdlib, stdlib_skip(stdlib, sites=True), borrowed=True)
    tree.entries.extend(_libraries(facts))
    if os.path.isdir(facts.include):
        tree.entries.extend(walk(facts.include, f"include/python{facts.short}", borrowed=True).entries)
    if facts.base_prefix not in SHARED:
        tree.entries.extend(_beside(facts.base_prefix))
    return tree


def executables(prefix: str, facts: InterpreterFacts) -> list[FoundFile]:
    """A venv's `python`: the base interpreter's file under its full name, and the two short names as links to it."""
    name = f"python{facts.short}"
    real = os.path.realpath(facts.base_executable)
    seen = os.stat(real)
    short = [FoundFile(f"bin/{link}", os.path.join(prefix, "bin", link), seen, name) for link in ("python", "python3")]
    return [FoundFile(f"bin/{name}", real, seen), *short]


def owns(path: str, facts: InterpreterFacts) -> bool:
    """Whether `path`, in an environment with its own interpreter, is part of that interpreter."""
    short = facts.short
    top, _, rest = path.partition("/")
    if top == "bin":
        return any(
            fnmatch.fnmatchcase(rest, shape)
            for shape in ("python", "python3", f"python{short}*", "python-config", "python3-config")
        ) or rest.removesuffix(short).rstrip("-3") in {"2to", "idle", "pydoc"}
    if top == "lib":
        if rest.startswith(f"python{short}/"):
            return not rest[len(short) + 7 :].startswith(("site-packages/", "dist-packages/"))
        first = rest.partition("/")[0]
        return first.startswith("libpython") or (
            rest.startswith("pkgconfig/python") or any(fnmatch.fnmatchcase(first, shape) for shape in _BESIDE)
        )
    return path == CONFIGURATION or path.startswith(
        (f"include/python{short}/", "share/man/man1/python", "share/terminfo/")
    )


def _libraries(facts: InterpreterFacts) -> list[FoundFile]:
    """libpython, if it is in a folder of the interpreter. Otherwise it is like any other library."""
    folder = os.path.join(facts.base_prefix, "lib")
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    wanted = (f"libpython{facts.short}.so*", "libpython3.so")
    found = [
        find_file(f"lib/{name}", os.path.join(folder, name))
        for name in names
        if any(fnmatch.fnmatchcase(name, shape) for shape in wanted)
    ]
    return [entry for entry in found if entry]


def _beside(base_prefix: str) -> list[FoundFile]:
    folder = os.path.join(base_prefix, "lib")
    entries: list[FoundFile] = []
    for name in sorted(os.listdir(folder)):
        if any(fnmatch.fnmatchcase(name, shape) for shape in _BESIDE) and os.path.isdir(os.path.join(folder, name)):
            entries.extend(walk(os.path.join(folder, name), f"lib/{name}", borrowed=True).entries)
    terminfo = os.path.join(base_prefix, "share", "terminfo")
    if os.path.isdir(terminfo):
        entries.extend(walk(terminfo, "share/terminfo", borrowed=True).entries)
    return entries
