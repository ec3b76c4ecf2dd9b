"""Select the files of a project on this disk that are its code. They ship as they are."""

from __future__ import annotations

import os
import re
import tempfile
from typing import TYPE_CHECKING

from lamella.builder.environment import LeftOut
from lamella.builder.files.secrets import VCS, VCS_FOLDER, secret
from lamella.builder.local.ignore import Ignore
from lamella.builder.prefix.walk import Tree, find_file, walk
from lamella.layers.settings.homes import home

if TYPE_CHECKING:
    from lamella.builder.prefix.places import Place

_NEVER = frozenset(
    {
        "node_modules",
        ".tox",
        ".nox",
        ".eggs",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".hypothesis",
        ".ipynb_checkpoints",
        ".idea",
        ".vscode",
        ".DS_Store",
        ".gitignore",
        ".gitattributes",
        ".gitmodules",
        ".lamellaignore",
        ".coverage",
    }
)
# Contents of folders that are never a project's code, though they may hold modules.
_NO_CODE = (
    (["pyvenv.cfg"], "an environment of its own"),
    (["conda-meta"], "an environment of its own"),
    (["oci-layout"], "an OCI layout"),
    (["hashes.sqlite"], "Lamella's own cache"),
    (["layers/sha256", "lock"], "Lamella's own store"),
    (["CACHEDIR.TAG"], "a cache, by its CACHEDIR.TAG"),  # bford.info/cachedir
)
PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")
"""Files at the top of a project."""
# A `.pth` file makes everything below it importable; these folders are never meant to be.
_BESIDE_CODE = frozenset(
    [
        "build",
        "dist",
        "doc",
        "docs",
        "documentation",
        "test",
        "tests",
        "unit_tests",
        "integration_tests",
        "htmlcov",
        "node_modules",
    ]
)
_MODULES_BESIDE_CODE = frozenset(["setup", "conftest", "test", "tests", "toxfile", "noxfile"])
_MODULE = re.compile(r"[^\W\d]\w*(\.[\w-]+)*\.(py|so|pyi|pyd)")
_BESIDE = "beside the project's code"
IGNORED = "ignored by .lamellaignore"
_NO_PROJECTS = frozenset(
    [
        *(
            "/bin",
            "/boot",
            "/dev",
            "/etc",
            "/home",
            "/lib",
            "/lib64",
            "/media",
            "/mnt",
            "/opt",
            "/proc",
            "/root",
            "/run",
        ),
        *(
            "/sbin",
            "/srv",
            "/sys",
            "/tmp",
            "/usr",
            "/usr/lib",
            "/usr/local",
            "/usr/share",
            "/var",
            "/var/lib",
            "/var/tmp",
        ),
    ]
)


def project_tree(root: Place, keep: frozenset[str] = frozenset(), name: str = "") -> Tree:
    """Files of an editable install's root: all of a package's folder, the importable ones of an import root.

    `.lamellaignore` excludes files; git's ignore files do not, since git ignores modules that a build
    writes (`_version.py`), which are imported. `keep` names egg-info folders that are the project's only
    metadata; others are written again by each install. `name` is the project's, normalised: a module of
    that name is its code, even if it is called `tests`.
    """
    own = name.replace("-", "_")
    if os.path.isfile(root.source):
        above, base = os.path.split(root.source)
        reason = never(root.path, base, root.source)
        ignore = Ignore(above, (".lamellaignore",), top_of(above))
        if reason is None and ignore.ignored(base, folder=False):
            reason = IGNORED
        entry = find_file(root.path, root.source)
        return Tree([], [LeftOut(root.source, reason)]) if reason else Tree([entry] if entry else [], [])
    ignore = Ignore(root.source, (".lamellaignore",), top_of(root.source))
    is_project = bool(set(os.listdir(root.source)) & set(PROJECT))
    is_import_root = root.path.endswith("/site-packages")

    def skip(path: str, name: str) -> str | None:
        inner = os.path.relpath(path, root.path)
        source = os.path.join(root.source, inner)
        folder = os.path.isdir(source)
        if name.endswith(".egg-info"):
            return None if name in keep else "metadata of a build, which the install's own replaces"
        if reason := never(path, name, source):
            return reason
        if ignore.ignored(inner, folder=folder and not os.path.islink(source)):
            return IGNORED
        stem = name.partition(".")[0]
        if is_project and is_import_root and inner == name and stem != own:
            if is_beside(name, folder=folder):
                return _BESIDE
            if not (name.isidentifier() and has_code(source) if folder else _MODULE.fullmatch(name)):
                return _BESIDE
        return None

    return walk(root.source, root.path, skip, borrowed=True)


def top_of(folder: str) -> str:
    """Topmost folder whose ignore files apply to `folder`: its repository, else its project, else itself."""
    project = ""
    at = folder
    while not too_broad(at):
        if any(os.path.lexists(os.path.join(at, name)) for name in VCS):
            return at
        if not project and any(os.path.isfile(os.path.join(at, name)) for name in PROJECT):
            project = at
        at = os.path.dirname(at)
    return project or folder


def never(path: str, name: str, source: str) -> str | None:
    """Reason why a file or folder of a project must never ship, or None."""
    if name in _NEVER:
        return "a tool's own file"
    if name in VCS:
        return VCS_FOLDER
    if os.path.isdir(source):
        for marks, what in _NO_CODE:
            if all(os.path.exists(os.path.join(source, mark)) for mark in marks):
                return what
        if _is_prefix(source):
            return "an environment of its own"
    elif _is_export(source):
        return "an export of an environment"
    return secret(path, name, source)


def _is_prefix(folder: str) -> bool:
    """Whether an interpreter and its library are in `folder`, as in a mount or export of a system's Python."""
    if not os.path.lexists(os.path.join(folder, "bin", "python3")):
        return False
    try:
        return any(name.startswith("python3") for name in os.listdir(os.path.join(folder, "lib")))
    except OSError:
        return False


def _is_export(source: str) -> bool:
    from lamella.layers.exporting.recognition import is_export

    return is_export(source)


def is_beside(name: str, *, folder: bool) -> bool:
    """Whether a file or folder of this name at a project's top belongs to the project, but is not code."""
    return name in _BESIDE_CODE if folder else name.partition(".")[0] in _MODULES_BESIDE_CODE


def is_repository(folder: str) -> bool:
    """Whether `folder` is a repository. A submodule, whose `.git` is a file, is part of the outer one."""
    return any(os.path.isdir(os.path.join(folder, name)) for name in VCS)


def too_broad(folder: str) -> bool:
    """Whether `folder` is more than a project: the root, a system folder, a home, or a folder of homes."""
    real = os.path.realpath(folder)
    own_home = os.path.realpath(home()) if home() else ""
    if own_home and (real == own_home or own_home.startswith(real.rstrip("/") + "/")):
        return True
    if real == os.path.realpath(tempfile.gettempdir()):
        return True
    return real in _NO_PROJECTS or real == _home_of_owner(real)


def _home_of_owner(folder: str) -> str:
    """With `sudo`, the home of the user who runs it."""
    import pwd

    try:
        return os.path.realpath(pwd.getpwuid(os.stat(folder).st_uid).pw_dir)
    except (OSError, KeyError):
        return ""


def has_code(folder: str) -> bool:
    """Whether `folder` or any folder below it has a Python module."""
    for _, folders, names in os.walk(folder):
        if any(name.endswith((".py", ".so")) for name in names):
            return True
        folders[:] = [name for name in folders if name not in _NEVER and name not in VCS]
    return False
