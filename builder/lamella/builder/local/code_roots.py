"""Find folders with the user's own, not installed code: the working directory and those in PYTHONPATH."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import CannotBuild
from lamella.builder.files.small_file import plain_text, read_toml
from lamella.builder.installed.distributions import normalised
from lamella.builder.local.ignore import Ignore
from lamella.builder.local.import_path import import_path, is_archive, is_target
from lamella.builder.local.project_files import PROJECT, is_beside, is_repository, never, too_broad, top_of
from lamella.builder.local.unshipped_files import beside_installed
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.prefix.walk import FoundFile

_DEPTH = 3
"""Maximum folders between a working directory, not named by the user, and a module in it, such as `a/b/c/mod.py`."""


class LocalCode(NamedTuple):
    """Local code to ship, as the user requests."""

    folder: str = ""
    """Folder whose code ships; empty for none."""
    include: tuple[str, ...] = ()
    """Files and folders to ship in any case, relative to `folder`, or to the current one."""
    allow_large: bool = False
    asked: bool = True
    """Whether the user named `folder`. Otherwise it is the working directory, and ships if it is a project."""


class Installed(NamedTuple):
    """Facts of an environment that decide which local code ships."""

    entries: Mapping[str, FoundFile]
    """Files by path, relative to the prefix."""
    names: frozenset[str]
    """Normalised names of ordinary installed packages."""
    origins: frozenset[str]
    """Project folders of ordinary installed packages."""
    editable: tuple[str, ...]
    """Files and folders that editable installs and `.pth` files ship."""
    projects: tuple[str, ...]
    """Folders of editable installs, or in their projects."""
    prefix: str
    folders: tuple[str, ...]
    """Folders of the environment itself, which hold no local code."""


class CodeRoot(NamedTuple):
    """A folder whose code ships."""

    folder: str
    without: frozenset[str]
    """Files and folders below it that editable installs ship."""


class CodeRoots(NamedTuple):
    """Folders in the order of Python's search."""

    roots: list[CodeRoot]
    findings: list[Finding]


def code_roots(local: LocalCode, installed: Installed) -> CodeRoots:
    """Find the folders with code to ship: that of `local`, and those in PYTHONPATH.

    Raises `CannotBuild` if the user named a folder that is not a project; for others there is a finding.
    """
    result = CodeRoots([], [])
    if not local.folder:
        return result
    base = os.path.abspath(local.folder)
    if not os.path.isdir(base):
        raise CannotBuild(f"--local {base}: not a directory; name a project's folder", code="invalid")
    for folder in (base, *_pythonpath(base)):
        named = local.asked and folder == base
        if reason := _unfit(folder, installed):
            if named:
                raise CannotBuild(
                    f"--local {folder}: {reason}; name a project's folder, or leave local code out with --no-local",
                    code="invalid",
                )
            if _holds_modules(folder) and not (folder != base and _within(folder, installed.folders)):
                message = f"{folder}: code left out, {reason}; name a project's folder with --local FOLDER"
                result.findings.append(Finding("note", "local", folder, message))
            continue
        if not (named or _has_own_code(folder)):
            continue
        real = os.path.realpath(folder)
        projects = {_project_of(path) for path in installed.projects}
        # An editable install defines which files of its project are code.
        if real in projects or _within(real, installed.editable):
            _add_beside(folder, base, local, installed, result)
            continue
        if name := _installed_as(folder, installed):
            message = (
                f"{name}: ships as installed, not from this folder; install it with -e to ship the folder's code: "
                f"{folder}"
            )
            result.findings.append(Finding("warning" if named else "note", "local", folder, message))
            _add_beside(folder, base, local, installed, result)
            continue
        below = {path for path in (*projects, *installed.editable) if _within(path, [real])}
        result.roots.append(CodeRoot(folder, frozenset(below)))
    return result


def _add_beside(folder: str, base: str, local: LocalCode, installed: Installed, result: CodeRoots) -> None:
    """Report files beside the project in the working directory, which people run as `python train.py`."""
    if folder == base and (note := beside_installed(folder, installed.editable, local.include)):
        result.findings.append(note)


def project(folder: str) -> tuple[str, str]:
    """Name (normalised) and version of the project in `folder`, by its own metadata; each may be empty."""
    try:
        settings = read_toml(os.path.join(folder, "pyproject.toml"))
        metadata = settings.get("project") or settings.get("tool", {}).get("poetry", {})
        return normalised(plain_text(metadata.get("name"))), plain_text(metadata.get("version"))
    except (OSError, ValueError, AttributeError):
        return "", ""  # missing or unreadable


def _unfit(folder: str, installed: Installed) -> str:
    """Reason why `folder` is not a project; empty if it may be one."""
    if too_broad(folder):
        return "more than a project"
    if _within(os.path.realpath(folder), installed.folders):
        return f"part of the environment {installed.prefix}"
    if never(folder.strip("/"), os.path.basename(folder), folder):
        return "not a project"
    return ""


def _has_own_code(folder: str) -> bool:
    """Whether `folder` has importable code outside the projects, repositories and environments in it."""
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
    """Whether `folder` itself has modules or packages. Folders that are never code are skipped."""
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
    """Project of the file or folder `path`: the nearest parent that is a project, else `path` itself."""
    at = path if os.path.isdir(path) else os.path.dirname(path)
    while not too_broad(at):
        if any(os.path.isfile(os.path.join(at, name)) for name in PROJECT):
            return os.path.realpath(at)
        at = os.path.dirname(at)
    return os.path.realpath(path)


def _pythonpath(base: str) -> Sequence[str]:
    return [
        entry for entry in import_path(base) if os.path.isdir(entry) and not is_target(entry) and not is_archive(entry)
    ]


def _within(path: str, folders: Sequence[str]) -> bool:
    """Whether `path` is one of `folders`, or below one."""
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
