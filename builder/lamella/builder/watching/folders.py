"""Folders in which a change may change what a push ships: those of the prefix, and those of local code.

Named by their real paths, since an event can come by a link's name (`lib64`).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lamella.builder.prefix.locate import SHARED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import Environment, Package

_NO_PACKAGES = frozenset({"pkgs", "envs", "conda-bld", "proc", "sys", "dev"})
"""Folders of a conda installation that no environment ships; `pkgs` can have 100,000 folders."""


@dataclass(frozen=True, slots=True)
class Folders:
    """Folders to watch. Those of `deep` do not contain each other."""

    deep: tuple[str, ...]
    """With everything below."""
    flat: tuple[str, ...]
    """Their own entries alone: a project's folder, which may hold data, repositories and environments."""


def of_prefix(prefix: str) -> Folders:
    """Folders of the environment at `prefix`, before a scan. A system's prefix has only its packages' folders."""
    real = os.path.realpath(prefix)
    if real in SHARED:
        return Folders(_topmost(_system_sites(real)), ())
    below = [entry.path for entry in _entries(real) if entry.is_dir() and entry.name not in _NO_PACKAGES]
    return Folders(_topmost(below), (real,))


def of_environment(environment: Environment, more: Iterable[str]) -> Folders:
    """Folders of the local code of a scanned environment; `more`: folders in which code can appear."""
    own = [os.path.realpath(environment.prefix), os.path.realpath(environment.interpreter.base_prefix)]
    deep: set[str] = set()
    flat = {os.path.realpath(folder) for folder in more if os.path.isdir(folder)}
    for package in environment.packages:
        if package.origin in ("python", "system"):
            continue
        project = _project(package)
        for folder in {os.path.dirname(file.source) for file in package.files}:
            real = os.path.realpath(folder)
            if any(is_in(real, each) for each in own):
                continue
            if project and is_in(real, project):
                flat.add(project)
                below = real[len(project) + 1 :].partition("/")[0]
                if below:
                    deep.add(f"{project}/{below}")
            else:
                flat.add(real) if real in SHARED else deep.add(real)
    return Folders(_topmost(deep), tuple(sorted(flat)))


def _project(package: Package) -> str:
    """Folder that the package was installed from, resolved; empty for an index."""
    if not package.source.startswith("file://"):
        return ""
    path = package.source.removeprefix("file://")
    real = os.path.realpath(path if os.path.exists(path) else unquote(path))
    return real if os.path.isdir(real) else ""


def is_noise(path: str) -> bool:
    """Whether a change of `path` never changes what ships: byte code, and what tools keep beside code."""
    parts = path.split("/")
    return parts[-1].endswith((".pyc", ".pyo", ".swp", ".swx")) or not _TOOLS.isdisjoint(parts)


_TOOLS = frozenset(
    {
        *(
            "__pycache__",
            ".git",
            ".hg",
            ".svn",
            ".bzr",
            "node_modules",
            ".tox",
            ".nox",
            ".eggs",
            ".mypy_cache",
            ".pytest_cache",
        ),
        *(".ruff_cache", ".hypothesis", ".ipynb_checkpoints", ".idea", ".vscode"),
    }
)


def _system_sites(prefix: str) -> Iterator[str]:
    for above in (f"{prefix}/lib", f"{prefix}/local/lib"):
        for entry in _entries(above):
            for name in ("site-packages", "dist-packages"):
                if entry.name.startswith("python3") and os.path.isdir(f"{entry.path}/{name}"):
                    yield f"{entry.path}/{name}"


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError:
        return []


def _topmost(folders: Iterable[str]) -> tuple[str, ...]:
    kept: list[str] = []
    for folder in sorted({os.path.realpath(folder) for folder in folders}):
        if not any(is_in(folder, above) for above in kept):
            kept.append(folder)
    return tuple(kept)


def is_in(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or below it."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")
