"""Which folders of this disk hold code of the user's own that no installer knows of: the working directory, PYTHONPATH's."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import CannotBuild
from lamella.builder.files.small_file import plain_text, read_toml
from lamella.builder.installed.distributions import normalised
from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import PROJECT, is_beside, is_repository, never, too_broad, top_of
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.prefix.walk import FoundFile

_DEPTH = 3
"""Folders between a working directory that nobody named and a module of it, such as `a/b/c/mod.py`."""


class Local(NamedTuple):
    """What the user wants to ship besides what is installed."""

    folder: str = ""
    """Whose code ships; empty for none."""
    include: tuple[str, ...] = ()
    """Files and folders that ship whatever they are, relative to `folder`, or to the current one."""
    allow_large: bool = False
    asked: bool = True
    """Whether the user named `folder`. Else it is the working directory, and ships if it is a project's."""


class Installed(NamedTuple):
    """What of an environment decides which of the code beside it ships."""

    entries: Mapping[str, FoundFile]
    """By path, relative to the prefix."""
    names: frozenset[str]
    """Normalised, of what is installed in the ordinary way."""
    origins: frozenset[str]
    """Folders of projects that were installed in the ordinary way."""
    editable: tuple[str, ...]
    """Files and folders that editable installs and `.pth` files ship."""
    projects: tuple[str, ...]
    """Folders of editable installs, or in their projects."""
    prefix: str
    folders: tuple[str, ...]
    """Of the environment itself: what is in them is no code beside it."""


class Root(NamedTuple):
    """One folder whose code ships."""

    folder: str
    without: frozenset[str]
    """Files and folders below it that ship otherwise: of editable installs."""


class Roots(NamedTuple):
    """The folders, those that Python looks into first being first."""

    roots: list[Root]
    findings: list[Finding]


def roots(local: Local, installed: Installed) -> Roots:
    """The folder that `local` names, and PYTHONPATH's, where they hold code that does not ship already.

    `CannotBuild` where the user named a folder that is no project's; of any other such folder a finding says so.
    """
    result = Roots([], [])
    if not local.folder:
        return result
    base = os.path.abspath(local.folder)
    if not os.path.isdir(base):
        raise CannotBuild(f"{base}, whose code is to ship, is no folder: correct --local")
    for folder in (base, *_pythonpath(base)):
        named = local.asked and folder == base
        if reason := _unfit(folder, installed):
            if named:
                raise CannotBuild(
                    f"{folder} {reason}: name a project's folder with --local FOLDER, or leave local code out with "
                    "--no-local"
                )
            if _holds_modules(folder) and not (folder != base and _within(folder, installed.folders)):
                message = f"no code of {folder} ships: it {reason}; name a project's folder with --local FOLDER"
                result.findings.append(Finding("note", "local", folder, message))
            continue
        if not (named or _has_own_code(folder)):
            continue
        real = os.path.realpath(folder)
        projects = {_project_of(path) for path in installed.projects}
        # An editable install says exactly what of its project is code.
        if real in projects or _within(real, installed.editable):
            continue
        if name := _installed_as(folder, installed):
            message = (
                f"{name} is installed, so that the code of {folder} does not ship a second time: install it with -e to "
                "ship it as it is there"
            )
            result.findings.append(Finding("warning" if named else "note", "local", folder, message))
            continue
        below = {path for path in (*projects, *installed.editable) if _within(path, [real])}
        result.roots.append(Root(folder, frozenset(below)))
    return result


def project(folder: str) -> tuple[str, str]:
    """Name (normalised) and version that the project in `folder` gives itself; each may be empty."""
    try:
        settings = read_toml(os.path.join(folder, "pyproject.toml"))
        said = settings.get("project") or settings.get("tool", {}).get("poetry", {})
        return normalised(plain_text(said.get("name"))), plain_text(said.get("version"))
    except (OSError, ValueError, AttributeError):
        return "", ""  # says nothing, or nothing that can be read


def _unfit(folder: str, installed: Installed) -> str:
    """Why `folder` is no project's, as what follows its name; empty where it may be one."""
    if too_broad(folder):
        return "holds far more than a project's code"
    if _within(os.path.realpath(folder), installed.folders):
        return f"is a part of the environment {installed.prefix}"
    if never(folder.strip("/"), os.path.basename(folder), folder):
        return "is no project's folder"
    return ""


def _has_own_code(folder: str) -> bool:
    """Whether something can be imported from `folder` that is not a project, repository or environment in it."""
    ignore = Ignore(folder, top=top_of(folder))
    try:
        found = list(os.scandir(folder))
    except OSError:
        return False
    for item in found:
        name = item.name
        is_folder = item.is_dir()
        if name.startswith(".") or never(name, name, item.path) or is_beside(name, folder=is_folder):
            continue
        if ignore.ignored(name, folder=is_folder):
            continue
        if is_folder and name.isidentifier() and not is_repository(item.path) and _leads_to_code(item.path, _DEPTH):
            return True
        if not is_folder and name.endswith((".py", ".so")):
            return True
    return False


def _leads_to_code(folder: str, depth: int) -> bool:
    try:
        found = list(os.scandir(folder))
    except OSError:
        return False
    if any(item.name.endswith((".py", ".so")) and item.is_file() for item in found):
        return True
    return depth > 1 and any(
        item.name.isidentifier() and item.is_dir(follow_symlinks=False) and _leads_to_code(item.path, depth - 1)
        for item in found
    )


def _holds_modules(folder: str) -> bool:
    """Whether modules or packages are in `folder` itself. What is no project's is not looked through."""
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    return any(
        name.endswith((".py", ".so")) or os.path.isfile(os.path.join(folder, name, "__init__.py"))
        for name in names
        if not name.startswith(".")
    )


def _installed_as(folder: str, installed: Installed) -> str:
    name, _ = project(folder)
    if name in installed.names:
        return name
    return os.path.basename(folder) if os.path.realpath(folder) in installed.origins else ""


def _project_of(path: str) -> str:
    """The project that the file or folder `path` is of: the nearest folder above it that says so, else itself."""
    at = path if os.path.isdir(path) else os.path.dirname(path)
    while not too_broad(at):
        if any(os.path.isfile(os.path.join(at, name)) for name in PROJECT):
            return os.path.realpath(at)
        at = os.path.dirname(at)
    return os.path.realpath(path)


def _pythonpath(base: str) -> Sequence[str]:
    folders = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder) and folder != base]


def _within(path: str, folders: Sequence[str]) -> bool:
    """Whether `path` is one of `folders`, or below one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
