"""The code of the working directory, of PYTHONPATH's folders, and files that were asked for: one local package.

Python finds it on the laptop without any install; on a node it is in site-packages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.errors import CannotBuild
from lamella.builder.installed.distributions import Distribution, normalised
from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import has_code, is_beside, is_repository, never, too_broad, top_of
from lamella.builder.local.roots import project, roots
from lamella.builder.local.shadowing import Namesakes, joins
from lamella.builder.prefix.places import Place
from lamella.builder.prefix.walk import FoundFile, find_file, walk
from lamella.layers.homes import expanded
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.local.roots import Installed, Local, Root

LIMIT = 100 << 20
"""Bytes of local code that ship without having been asked for: more is data, or a mistake."""

_BUILT = frozenset({"build", "dist", "htmlcov"})
_INSTALLED = "an installed package of that name ships"


class Working(NamedTuple):
    """The local package."""

    distribution: Distribution | None
    entries: list[FoundFile]
    places: list[Place]
    left_out: list[LeftOut]
    findings: list[Finding]


def working(local: Local, site: str, installed: Installed) -> Working:
    """The code that `local` names, in `site`, but for what is `installed`.

    `CannotBuild` for a folder that the user named and that is no project's, and for an include that can't be.
    """
    chosen = roots(local, installed)
    result = Working(None, [], [], [], [*chosen.findings])
    namesakes = Namesakes(installed.entries, site)
    for root in chosen.roots:
        _add(root, site, local, namesakes, result)
    base = os.path.abspath(local.folder or os.curdir)
    for path in local.include:
        _include(path, base, site, installed.entries, result)
    if not result.entries:
        return result
    folder = base if local.include or not chosen.roots else chosen.roots[0].folder
    name, version = project(folder)
    return result._replace(
        distribution=Distribution(
            "local",
            name or normalised(os.path.basename(folder)) or "local",
            version,
            "",
            {entry.path: "" for entry in result.entries},
            source=f"file://{folder}",
        )
    )


def within_limit(entries: Mapping[str, FoundFile], found: Iterable[Distribution], local: Local) -> None:
    """`CannotBuild` where the files of local projects among `found` have more than `LIMIT` bytes, which nobody allowed."""
    if local.allow_large:
        return
    ours = [each for each in found if each.origin == "local" or each.editable]
    paths = {path for each in ours for path in each.files or ()}
    files = [entries[path] for path in paths if path in entries]
    # A link to a folder elsewhere has become what is in it.
    if followed := tuple(f"{path}/" for path in paths if path not in entries):
        files += [entry for path, entry in entries.items() if path.startswith(followed)]
    size = sum(entry.seen.st_size for entry in files)
    if size > LIMIT:
        largest = max(files, key=lambda entry: (entry.seen.st_size, entry.source))
        names = ", ".join(sorted(each.source.removeprefix("file://") or each.name for each in ours))
        raise CannotBuild(
            f"the local code ({names}) has {size >> 20} MiB, more than {LIMIT >> 20}; the largest file is "
            f"{largest.source}: leave it out with .lamellaignore, or allow it with --allow-large"
        )


def _add(root: Root, site: str, local: Local, namesakes: Namesakes, result: Working) -> None:
    folder = root.folder
    top = top_of(folder)
    ignore, asked = Ignore(folder, top=top), Ignore(folder, (".lamellaignore",), top)
    files = [name for name in os.listdir(folder) if name.endswith((".py", ".so"))]
    modules = [name for name in files if not is_beside(name, folder=False)]

    def skip(path: str, name: str) -> str | None:
        inner = path[len(site) + 1 :]
        source = os.path.join(folder, inner)
        is_folder = os.path.isdir(source) and not os.path.islink(source)
        if reason := never(path, name, source):
            return reason
        if name.startswith(".") or name.endswith(".egg-info"):
            return "hidden, or made by a tool"
        # A compiled module is ignored by git because it is built, not because it is not needed.
        if ignore.ignored(inner, folder=is_folder) and not (
            name.endswith(".so") and not asked.ignored(inner, folder=False)
        ):
            return "ignored by .gitignore or .lamellaignore"
        if root.without and os.path.realpath(source) in root.without:
            return "an editable install ships it"
        if is_folder and not local.asked and is_repository(source):
            return "a repository of its own"
        if inner == name:
            if name in _BUILT and is_folder:
                return "built from the code"
            if is_folder and not modules and not has_code(source):
                return "no code, and beside none"
            if not is_folder and not modules:
                return "beside no code"
        return _hidden(path, source, folder, namesakes, result.findings)

    tree = walk(folder, site, skip, borrowed=True)
    known = {entry.path for entry in result.entries}
    result.entries.extend(entry for entry in tree.entries if entry.path not in known)
    result.left_out.extend(tree.left_out)
    result.places.append(Place(folder, site))


def _hidden(path: str, source: str, folder: str, namesakes: Namesakes, findings: list[Finding]) -> str | None:
    """Why `source`, which belongs at `path`, would not be what is imported on a node; None where it would be."""
    inner, name = os.path.relpath(source, folder), os.path.basename(source)
    if installed := namesakes.of(path, source):
        if name == "__init__.py" and joins(source):
            return _INSTALLED  # the same namespace's: either one finds the parts of both
        named = "" if installed == name else f" as {installed}"
        message = (
            f"{inner} of {folder} is installed as well{named}: the installed one ships; rename it, or uninstall that"
        )
        findings.append(Finding("warning", "shadowed", inner, message))
        return _INSTALLED
    is_module = name.endswith(".py") or os.path.isfile(os.path.join(source, "__init__.py"))
    if inner == name and is_module and namesakes.standard(name):
        message = f"{inner} of {folder} has the name of a module of Python's own, which nodes import instead: rename it"
        findings.append(Finding("warning", "shadowed", inner, message))
    return None


def _include(path: str, base: str, site: str, installed: Mapping[str, FoundFile], result: Working) -> None:
    source = os.path.normpath(os.path.join(base, expanded(path)))
    name = os.path.basename(source)
    if not os.path.lexists(source):
        raise CannotBuild(f"{source} is not there, and is to be included: correct --include")
    if too_broad(source):
        raise CannotBuild(
            f"{source} is to be included, and holds far more than a project's data: name what it is of it"
        )
    # Where it is on this disk counts here: what is in `.ssh` is no less secret for being named.
    for real in dict.fromkeys((source, os.path.realpath(source))):
        if reason := never(real.strip("/"), os.path.basename(real), real):
            raise CannotBuild(f"{source} is to be included, and never ships: it is {reason}; correct --include")
    inner = os.path.relpath(source, base)
    if inner.startswith(".."):
        inner = name
    if inner == os.curdir:
        raise CannotBuild(f"{source} is to be included, and is where its code is: ship that with --local {source}")
    target = f"{site}/{inner}"
    known = {entry.path for entry in result.entries}
    if os.path.isdir(source):

        def skip(path: str, name: str) -> str | None:
            return never(path, name, os.path.join(source, os.path.relpath(path, target)))

        tree = walk(source, target, skip, borrowed=True)
        found, left_out = tree.entries, tree.left_out
        result.places.append(Place(source, target))
    else:
        entry = find_file(target, source)
        found, left_out = [entry] if entry else [], []
    hidden = [entry for entry in found if entry.path in installed]
    result.entries.extend(entry for entry in found if entry.path not in known and entry.path not in installed)
    result.left_out.extend((*left_out, *(LeftOut(entry.source, _INSTALLED) for entry in hidden)))
    if hidden:
        message = (
            f"{source} is to be included as {inner}, and an installed package has {len(hidden)} of its files: the "
            "installed ones ship; rename it"
        )
        result.findings.append(Finding("warning", "shadowed", inner, message))
