"""Which files of a project on this disk are its code. It ships as it is."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.secrets import VCS, VCS_FOLDER, secret
from lamella.builder.walk import Tree, look, walk

if TYPE_CHECKING:
    from lamella.builder.places import Place

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
_PROJECT = frozenset({"pyproject.toml", "setup.py", "setup.cfg"})
# What setuptools' automatic discovery does not take for code of a project either (FlatLayoutPackageFinder).
_BESIDE_CODE = frozenset(
    [
        "build",
        "ci",
        "bin",
        "debian",
        "dist",
        "doc",
        "docs",
        "documentation",
        "manpages",
        "news",
        "newsfragments",
        "changelog",
        "test",
        "tests",
        "unit_test",
        "unit_tests",
        "integration_test",
        "integration_tests",
        "example",
        "examples",
        "scripts",
        "tools",
        "util",
        "utils",
        "python",
        "benchmark",
        "benchmarks",
        "exercise",
        "exercises",
        "htmlcov",
        "tasks",
        "fabfile",
        "site_scons",
    ]
)
_MODULES_BESIDE_CODE = frozenset(
    [
        "setup",
        "conftest",
        "test",
        "tests",
        "example",
        "examples",
        "build",
        "toxfile",
        "noxfile",
        "pavement",
        "dodo",
        "tasks",
        "fabfile",
    ]
)
_MODULE = re.compile(r"[^\W\d]\w*(\.[\w-]+)*\.(py|so|pyi|pyd)")


def project_tree(root: Place, keep: frozenset[str] = frozenset()) -> Tree:
    """The files of an editable install's root: of a package's folder all, of an import root what can be imported.

    `keep` names egg-info folders that are the project's only metadata; others are built anew with each install.
    """
    if os.path.isfile(root.source):
        entry = look(root.path, root.source)
        return Tree([entry] if entry else [], [])
    names = set(os.listdir(root.source))
    is_project = bool(names & _PROJECT)
    is_import_root = root.path.endswith("/site-packages")

    def skip(path: str, name: str) -> str | None:
        source = os.path.join(root.source, os.path.relpath(path, root.path))
        if name.endswith(".egg-info"):
            return None if name in keep else "metadata of a build, which the install's own replaces"
        reason = never(path, name, source)
        if reason is None and is_project and is_import_root and path == f"{root.path}/{name}":
            stem = name.partition(".")[0]
            if os.path.isdir(source):
                if name in _BESIDE_CODE or not name.isidentifier() or not has_code(source):
                    return "beside the project's code"
            elif stem in _MODULES_BESIDE_CODE or not _MODULE.fullmatch(name):
                return "beside the project's code"
        return reason

    return walk(root.source, root.path, skip, borrowed=True)


def never(path: str, name: str, source: str) -> str | None:
    """Why a file or folder of a project ships in no case; None where it may."""
    if name in _NEVER:
        return "made by a tool for itself"
    if name in VCS:
        return VCS_FOLDER
    if os.path.isdir(source) and (
        os.path.exists(os.path.join(source, "pyvenv.cfg")) or os.path.isdir(os.path.join(source, "conda-meta"))
    ):
        return "an environment of its own"
    return secret(path, name, source)


def too_broad(folder: str) -> bool:
    """Whether `folder` holds far more than a project: the root, a home, or a folder of homes."""
    real = os.path.realpath(folder)
    home = os.path.realpath(os.path.expanduser("~"))
    return real == home or home.startswith(real.rstrip("/") + "/") or real in {"/", "/usr", "/etc", "/var", "/tmp"}


def has_code(folder: str) -> bool:
    """Whether there is a Python module anywhere below `folder`."""
    for _, folders, names in os.walk(folder):
        if any(name.endswith((".py", ".so")) for name in names):
            return True
        folders[:] = [name for name in folders if name not in _NEVER and name not in VCS]
    return False
