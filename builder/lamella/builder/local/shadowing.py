"""Find local code with the name of an installed module: on a node both are in site-packages, and one is imported.

Source: the language reference, "The import system", for the order of packages, modules and namespaces.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

from lamella.builder.files.small_file import read_small

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.prefix.walk import FoundFile

_SUFFIXES = (".py", ".so")
_JOINS = (b"extend_path", b"declare_namespace")
"""Calls in the `__init__.py` of a package that has parts in other folders."""


class InstalledModules:
    """Installed files of `site`, by folder, read on demand."""

    def __init__(self, entries: Mapping[str, FoundFile], site: str) -> None:
        self._entries = entries
        self._site = site
        self._listed: dict[str, dict[str, Literal["file", "folder"]]] = {}

    def of(self, path: str, source: str) -> str:
        """Installed file or folder that collides with the local `source` at `path`; empty for none.

        Folders that are not packages are merged with those of the same name.
        """
        parent, _, name = path.rpartition("/")
        there = self._list(parent)
        same = there.get(name)
        if os.path.isdir(source) and not os.path.islink(source):
            if same == "file":
                return name
            start = os.path.join(source, "__init__.py")
            if not os.path.isfile(start) or joins(start):
                return ""
            return self._module(parent, name)
        if same:
            return name
        return self._module(parent, name.partition(".")[0]) if name.endswith(_SUFFIXES) else ""

    def standard(self, name: str) -> bool:
        """Whether Python has a module of that name, which is imported before any of site-packages."""
        stdlib = os.path.dirname(self._site)
        return bool(self._module(stdlib, name.partition(".")[0]))

    def _module(self, parent: str, name: str) -> str:
        """Module or package `name` in `parent`, except a namespace's folder."""
        there = self._list(parent)
        if there.get(name) == "folder" and f"{parent}/{name}/__init__.py" in self._entries:
            return name
        found = (each for each in there if each.partition(".")[0] == name and each.endswith(_SUFFIXES))
        return next((each for each in found if there[each] == "file"), "")

    def _list(self, folder: str) -> dict[str, Literal["file", "folder"]]:
        if folder in self._listed:
            return self._listed[folder]
        found: dict[str, Literal["file", "folder"]] = {}
        parent, _, name = folder.rpartition("/")
        # A folder that its parent does not list is empty: few are read.
        if folder in {self._site, os.path.dirname(self._site)} or self._list(parent).get(name) == "folder":
            start = len(folder) + 1
            for path in self._entries:
                if path.startswith(folder + "/"):
                    first, slash, _ = path[start:].partition("/")
                    found[first] = "folder" if slash else "file"
        self._listed[folder] = found
        return found


def joins(path: str) -> bool:
    """Whether the `__init__.py` at `path` joins its package with others of the same name."""
    try:
        content = read_small(path, 1 << 16)
    except OSError:
        return False
    return any(call in content for call in _JOINS)
