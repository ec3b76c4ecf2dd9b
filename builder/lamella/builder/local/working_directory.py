"""Collect the code of the working directory, of PYTHONPATH's folders, and included files as one local package.

Python finds it on the laptop without an install; on a node it is in site-packages.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.errors import CannotBuild
from lamella.builder.files.private_keys import is_private_key
from lamella.builder.files.secrets import KEY
from lamella.builder.installed.distributions import Distribution, normalised
from lamella.builder.local.code_roots import code_roots, project
from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import has_code, is_beside, is_repository, never, too_broad, top_of
from lamella.builder.local.shadowing import InstalledModules, joins
from lamella.builder.prefix.places import Place
from lamella.builder.prefix.walk import FoundFile, find_file, walk
from lamella.layers.published.findings import Finding
from lamella.layers.settings.homes import expanded
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.local.code_roots import CodeRoot, Installed, LocalCode

LIMIT = 100 << 20
"""Maximum bytes of local code without --allow-large: more is data, or a mistake."""

_BUILT = frozenset({"build", "dist", "htmlcov"})
_INSTALLED = "an installed package of that name ships"


class LocalPackage(NamedTuple):
    """The local package."""

    distribution: Distribution | None
    entries: list[FoundFile]
    places: list[Place]
    left_out: list[LeftOut]
    findings: list[Finding]


def find_local_package(local: LocalCode, site: str, installed: Installed) -> LocalPackage:
    """Collect the code that `local` names, to ship in `site`, except code that is `installed`.

    Raises `CannotBuild` for a folder that the user named and that is not a project, and for an invalid include.
    """
    chosen = code_roots(local, installed)
    result = LocalPackage(None, [], [], [], [*chosen.findings])
    installed_modules = InstalledModules(installed.entries, site)
    for root in chosen.roots:
        _add(root, site, local, installed_modules, result)
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


def within_limit(entries: Mapping[str, FoundFile], found: Iterable[Distribution], local: LocalCode) -> None:
    """Raise `CannotBuild` if the local projects among `found` have more than `LIMIT` bytes, unless allowed."""
    if local.allow_large:
        return
    ours = [each for each in found if each.origin == "local" or each.editable]
    paths = {path for each in ours for path in each.files or ()}
    files = [entries[path] for path in paths if path in entries]
    # A link to a folder was replaced by the folder's files.
    if followed := tuple(f"{path}/" for path in paths if path not in entries):
        files += [entry for path, entry in entries.items() if path.startswith(followed)]
    size = sum(entry.seen.st_size for entry in files)
    if size > LIMIT:
        largest = max(files, key=lambda entry: (entry.seen.st_size, entry.source))
        names = ", ".join(sorted(each.source.removeprefix("file://") or each.name for each in ours))
        raise CannotBuild(
            f"local code: {size >> 20} MiB, more than {LIMIT >> 20}; leave out files such as {largest.source} with "
            f".lamellaignore, or use --allow-large (folders: {names})"
        )


def _add(
    root: CodeRoot, site: str, local: LocalCode, installed_modules: InstalledModules, result: LocalPackage
) -> None:
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
            return "hidden, or a tool's own"
        # git ignores a compiled module because it is built, not because it is not needed.
        if ignore.ignored(inner, folder=is_folder) and not (
            name.endswith(".so") and not asked.ignored(inner, folder=False)
        ):
            return "ignored by .gitignore or .lamellaignore"
        if root.without and os.path.realpath(source) in root.without:
            return "part of an editable install"
        if is_folder and not local.asked and is_repository(source):
            return "a repository of its own"
        if inner == name:
            if name in _BUILT and is_folder:
                return "built from the code"
            if is_folder and not modules and not has_code(source):
                return "not code, in a folder without code"
            if not is_folder and not modules:
                return "beside no code"
        return _hidden(path, source, folder, installed_modules, result.findings)

    tree = walk(folder, site, skip, borrowed=True)
    known = {entry.path for entry in result.entries}
    result.entries.extend(entry for entry in tree.entries if entry.path not in known)
    result.left_out.extend(tree.left_out)
    result.places.append(Place(folder, site))


def _hidden(
    path: str, source: str, folder: str, installed_modules: InstalledModules, findings: list[Finding]
) -> str | None:
    """Reason why Python would not import `source`, which belongs at `path`, on a node; else None."""
    inner, name = os.path.relpath(source, folder), os.path.basename(source)
    if installed := installed_modules.of(path, source):
        if name == "__init__.py" and joins(source):
            return _INSTALLED  # the same namespace package: both parts are found
        message = f"{inner}: left out for the installed {installed}; rename it in {folder}, or uninstall the other"
        findings.append(Finding("warning", "shadowed", inner, message))
        return _INSTALLED
    is_module = name.endswith(".py") or os.path.isfile(os.path.join(source, "__init__.py"))
    if inner == name and is_module and installed_modules.standard(name):
        message = f"{inner}: nodes import Python's own module of this name instead; rename it in {folder}"
        findings.append(Finding("warning", "shadowed", inner, message))
    return None


def _include(path: str, base: str, site: str, installed: Mapping[str, FoundFile], result: LocalPackage) -> None:
    source = os.path.normpath(os.path.join(base, expanded(path)))
    name = os.path.basename(source)
    if not os.path.lexists(source):
        raise CannotBuild(f"--include {source}: no such file or folder", code="invalid")
    if too_broad(source):
        raise CannotBuild(
            f"--include {source}: more than a project's data; name the files or folders in it to ship", code="invalid"
        )
    # Judge the path on this disk: a file in `.ssh` stays a secret when it is included by name.
    for real in dict.fromkeys((source, os.path.realpath(source))):
        if reason := never(real.strip("/"), os.path.basename(real), real):
            raise CannotBuild(f"--include {source}: never ships: {reason}; leave it out", code="invalid")
    if os.path.isfile(source) and is_private_key(name, os.path.getsize(source), source):
        raise CannotBuild(f"--include {source}: never ships: {KEY}; leave it out", code="invalid")
    inner = os.path.relpath(source, base)
    if inner.startswith(".."):
        inner = name
    if inner == os.curdir:
        raise CannotBuild(
            f"--include {source}: the folder of the local code itself; ship that with --local {source}", code="invalid"
        )
    target = f"{site}/{inner}"
    known = {entry.path for entry in result.entries}
    if os.path.isdir(source):

        def skip(path: str, name: str) -> str | None:
            return never(path, name, os.path.join(source, os.path.relpath(path, target)))

        tree = walk(source, target, skip, borrowed=True)
        found, left_out = tree.entries, tree.left_out
    else:
        # The user names the file itself, so a link that leads out of the environment may lead there.
        entry = find_file(target, os.path.realpath(source))
        found, left_out = [entry] if entry else [], []
    # Links elsewhere that lead there stay links, whichever of its names they use.
    result.places.extend(Place(spelling, target) for spelling in dict.fromkeys((source, os.path.realpath(source))))
    hidden = [entry for entry in found if entry.path in installed]
    result.entries.extend(entry for entry in found if entry.path not in known and entry.path not in installed)
    result.left_out.extend((*left_out, *(LeftOut(entry.source, _INSTALLED) for entry in hidden)))
    if hidden:
        message = (
            f"{inner}: {counted(len(hidden), 'file')} left out, since an installed package has files of these names; "
            f"rename it: {source}"
        )
        result.findings.append(Finding("warning", "shadowed", inner, message))
