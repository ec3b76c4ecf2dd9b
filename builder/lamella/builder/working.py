"""The code of the working directory, of PYTHONPATH's folders, and files that were asked for: one local package.

Python finds it on the laptop without any install; on a node it is in site-packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.distributions import Distribution, normalised
from lamella.builder.environment import Finding, LeftOut
from lamella.builder.errors import CannotBuild
from lamella.builder.ignore import Ignore
from lamella.builder.local import has_code, never, too_broad
from lamella.builder.places import Place
from lamella.builder.walk import Entry, look, walk

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

LIMIT = 100 << 20
"""Bytes of local code that ship without having been asked for: more is data, or a mistake."""

_BUILT = frozenset({"build", "dist", "htmlcov"})


class Local(NamedTuple):
    """What the user wants to ship besides what is installed."""

    folder: str = ""
    """Whose code ships; empty for none."""
    include: tuple[str, ...] = ()
    """Files and folders that ship whatever they are, relative to `folder`, or to the current one."""
    allow_large: bool = False


class Working(NamedTuple):
    """The local package."""

    distribution: Distribution | None
    entries: list[Entry]
    places: list[Place]
    left_out: list[LeftOut]
    findings: list[Finding]


def working(local: Local, site: str, taken: Collection[str], projects: Iterable[str]) -> Working:
    """The code that `local` names, in `site`. `taken` are paths that installed packages have; `projects` are folders
    that ship already, as editable installs.

    `CannotBuild` for a folder that is no project's, and for more than `LIMIT`.
    """
    result = Working(None, [], [], [], [])
    base = os.path.abspath(local.folder or os.curdir)
    roots = [base, *_pythonpath(base)] if local.folder else []
    shipped = [os.path.realpath(project) for project in projects]
    for root in roots:
        if too_broad(root):
            raise CannotBuild(
                f"{root} holds far more than a project's code: go to the project's folder, or leave local code out "
                "with --no-local"
            )
        # An editable install says exactly what of this project is code.
        if not any(_within(project, os.path.realpath(root)) for project in shipped):
            _add(root, site, taken, result)
    size = sum(entry.seen.st_size for entry in result.entries)
    if size > LIMIT and not local.allow_large:
        largest = max(result.entries, key=lambda entry: entry.seen.st_size)
        raise CannotBuild(
            f"the code in {base} has {size >> 20} MiB, more than {LIMIT >> 20}; the largest file is {largest.source}: "
            "leave it out with .lamellaignore, or allow it with --allow-large"
        )
    for path in local.include:
        _include(path, base, site, taken, result)
    files = {entry.path: "" for entry in result.entries}
    if not files:
        return result
    name, version = _project(base)
    return result._replace(distribution=Distribution("local", name, version, "", files, source=f"file://{base}"))


def _add(root: str, site: str, taken: Collection[str], result: Working) -> None:
    ignore = Ignore(root)
    names = sorted(os.listdir(root))
    modules = [name for name in names if name.endswith((".py", ".so")) and os.path.isfile(os.path.join(root, name))]
    tops = {path[len(site) + 1 :].partition("/")[0] for path in taken if path.startswith(site + "/")}

    def skip(path: str, name: str) -> str | None:
        inner = path[len(site) + 1 :]
        source = os.path.join(root, inner)
        folder = os.path.isdir(source) and not os.path.islink(source)
        if reason := never(path, name, source):
            return reason
        if name.startswith(".") or name.endswith(".egg-info"):
            return "hidden, or made by a tool"
        # A compiled module is ignored by git because it is built, not because it is not needed.
        if ignore.ignored(inner, folder=folder) and not (name.endswith(".so") and not _asked_to_ignore(root, inner)):
            return "ignored by .gitignore or .lamellaignore"
        if inner != name:
            return None
        if name in tops:
            message = f"{name} of {root} is installed as well: the installed one ships; install the project with -e"
            result.findings.append(Finding("warning", "shadowed", name, message))
            return "an installed package of that name ships"
        if name in _BUILT and folder:
            return "built from the code"
        if folder and not modules and not has_code(source):
            return "no code, and beside none"
        if not folder and not modules:
            return "beside no code"
        return None

    tree = walk(root, site, skip, borrowed=True)
    known = {entry.path for entry in result.entries}
    result.entries.extend(entry for entry in tree.entries if entry.path not in known)
    result.left_out.extend(tree.left_out)
    result.places.append(Place(root, site))


def _asked_to_ignore(root: str, path: str) -> bool:
    return Ignore(root, (".lamellaignore",)).ignored(path, folder=False)


def _include(path: str, base: str, site: str, taken: Collection[str], result: Working) -> None:
    source = os.path.normpath(os.path.join(base, os.path.expanduser(path)))
    inner = os.path.relpath(source, base)
    if inner == "." or inner.startswith(".."):
        inner = os.path.basename(source)
    target = f"{site}/{inner}"
    known = {entry.path for entry in result.entries}
    if os.path.isdir(source):

        def skip(path: str, name: str) -> str | None:
            return never(path, name, os.path.join(source, os.path.relpath(path, target)))

        tree = walk(source, target, skip, borrowed=True)
        found, left_out = tree.entries, tree.left_out
        result.places.append(Place(source, target))
    else:
        entry = look(target, source)
        if entry is None:
            raise CannotBuild(f"{source} is not there, and is to be included: correct --include")
        reason = never(target, os.path.basename(source), source)
        found, left_out = ([], [LeftOut(source, reason)]) if reason else ([entry], [])
    result.entries.extend(each for each in found if each.path not in known and each.path not in taken)
    result.left_out.extend(left_out)


def _pythonpath(base: str) -> Sequence[str]:
    folders = [os.path.abspath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    return [folder for folder in dict.fromkeys(folders) if os.path.isdir(folder) and folder != base]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _project(folder: str) -> tuple[str, str]:
    """Name and version as pyproject.toml says them; else the folder's name."""
    name, version = os.path.basename(folder), ""
    try:
        tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
        with open(os.path.join(folder, "pyproject.toml"), "rb") as file:
            said = tomllib.load(file).get("project", {})
        name, version = str(said.get("name") or name), str(said.get("version") or "")
    except (OSError, ValueError, AttributeError):
        pass  # a project that says nothing, or nothing that can be read, has its folder's name
    return normalised(name) or "local", version
