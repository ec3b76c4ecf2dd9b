"""Collect every file that may ship, by names, times and records, before any file is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lamella.builder.environment import LeftOut
from lamella.builder.installed.conda import conda_packages, conda_skip
from lamella.builder.installed.distributions import distributions
from lamella.builder.installed.inventory import Inventory
from lamella.builder.local.code_roots import Installed
from lamella.builder.local.editable_projects import find_editable_projects
from lamella.builder.local.working_directory import find_local_package
from lamella.builder.prefix import base_python
from lamella.builder.prefix.locate import SHARED
from lamella.builder.prefix.places import Place, in_environment, made_at, places
from lamella.builder.prefix.sites import is_system, sites, user_base
from lamella.builder.prefix.venv import isolation, venv_skip
from lamella.builder.prefix.walk import FoundFile, Tree, find_file, walk
from lamella.builder.scanning import symlinks
from lamella.builder.scanning.link_targets import LinkTargets
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.local.code_roots import LocalCode
    from lamella.builder.prefix.interpreter import Prefix
    from lamella.builder.prefix.sites import Site


def collect(prefix: Prefix, local: LocalCode, cache_path: str) -> Inventory:
    """Collect the prefix, the folders that it borrows, and local code.

    Raises `CannotBuild` for a folder that cannot be listed.
    """
    own, base = _trees(prefix)
    conda, findings = conda_packages(prefix.path) if prefix.kind == "conda" else ([], [])
    # A file of the environment wins over its base interpreter's at the same path, except `python` itself.
    borrowed = {entry.path for entry in base.entries} - {entry.path for entry in own.entries}
    executables = (
        [] if prefix.kind == "conda" or not base.entries else base_python.executables(prefix.path, prefix.python)
    ) + isolation(prefix, cache_path)
    merged = {entry.path: entry for entry in (*base.entries, *own.entries, *executables)}
    python = borrowed | {entry.path for entry in executables}
    if prefix.kind == "plain" and not base.entries:
        python = {path for path in merged if base_python.owns(path, prefix.python)}
    gathered = Inventory(
        merged, places(prefix), conda, [], frozenset(python), [*own.left_out, *base.left_out], findings, {}
    )
    for site in sites(prefix):
        gathered = _add_site(gathered, site, prefix.site_packages, cache_path)
    said = [*gathered.findings, *_moved(prefix), *_users_own(prefix, gathered)]
    gathered = gathered._replace(findings=said)
    gathered = _add_local(gathered, local, prefix)
    resolved = symlinks.resolve(gathered.entries, gathered.places, gathered.left_out, _link_targets(prefix, gathered))
    entries = {entry.path: entry for entry in resolved.entries}
    if prefix.python.debian and base.entries:
        # With its own interpreter, Debian's site module reads this folder.
        path = f"{prefix.stdlib}/dist-packages"
        entries[path] = FoundFile(path, prefix.python.stdlib, os.stat(prefix.python.stdlib), "site-packages")
        python.add(path)
    return gathered._replace(
        entries=entries,
        python=frozenset(python),
        left_out=[*gathered.left_out, *resolved.left_out],
        findings=[*gathered.findings, *resolved.findings],
        expected=resolved.expected,
    )


def _link_targets(prefix: Prefix, gathered: Inventory) -> LinkTargets:
    environment = _own_folders(prefix) + [
        os.path.realpath(folder) for folder in (prefix.python.stdlib, prefix.python.include)
    ]
    return LinkTargets(
        tuple(Place(folder, "") for folder in dict.fromkeys(environment)),
        tuple(place for place in gathered.places if place.path.startswith(prefix.site_packages)),
        [*gathered.conda, *gathered.pip],
    )


def _own_folders(prefix: Prefix) -> list[str]:
    """Folders of the environment itself, in each spelling: they hold no local code."""
    own = [place.source for place in places(prefix) if place.source not in SHARED]
    return own + [found for each in sites(prefix) for found in (each.source, os.path.realpath(each.source))]


def _moved(prefix: Prefix) -> list[Finding]:
    made = made_at(prefix.path) if prefix.kind == "venv" else ""
    if not made or os.path.exists(made):
        return []
    message = f"{prefix.path}: moved from {made}, which files may still name; they are rewritten as before the move"
    return [Finding("warning", "moved", prefix.path, message)]


def _users_own(prefix: Prefix, gathered: Inventory) -> list[Finding]:
    """Findings for packages of the user's own site, which Python imports here and which do not ship."""
    site = os.path.join(user_base() or os.devnull, prefix.site_packages)
    reads = prefix.kind != "venv" and prefix.sees_system and not is_system(prefix)
    if not reads or not os.path.isdir(site) or os.environ.get("PYTHONNOUSERSITE"):
        return []
    here = {each.name for each in (*gathered.pip, *gathered.conda)}
    theirs = distributions(site, "", ())
    findings = [
        Finding(
            "warning",
            "shadowed",
            name,
            f"{name}: ships from the environment, though Python imports it from {site} here",
        )
        for name in sorted({each.name for each in theirs} & here)
    ]
    owned = {path.lstrip("/").partition("/")[0] for each in theirs for path in each.files or each.tops}
    loose = {
        name.partition(".")[0]
        for name in os.listdir(site)
        if name not in owned
        and (name.endswith((".py", ".so")) or os.path.isfile(os.path.join(site, name, "__init__.py")))
    }
    return findings + [
        Finding(
            "warning",
            "outside",
            name,
            f"{name}: left out, since it is not in the environment; install it there; Python imports it from {site} here",
        )
        for name in sorted({each.name for each in theirs} - here | loose)
    ]


def _trees(prefix: Prefix) -> tuple[Tree, Tree]:
    """Files of the environment itself, and of its base interpreter."""
    if prefix.kind == "venv":
        where = frozenset({"", "bin", prefix.site_packages})
        return walk(prefix.path, skip=venv_skip(prefix.path), only_in=where), base_python.borrowed(prefix.python)
    if is_system(prefix):
        return Tree([], []), base_python.borrowed(prefix.python)
    skip_stdlib = base_python.stdlib_skip(prefix.stdlib, sites=False)
    if prefix.kind == "plain":
        return walk(prefix.path, skip=skip_stdlib), Tree([], [])
    return walk(prefix.path, skip=conda_skip), Tree([], [])


def _add_site(gathered: Inventory, site: Site, path: str, cache_path: str) -> Inventory:
    """Add the distributions of one more folder of packages, and the projects that it points to."""
    spelled = [place.source for place in gathered.places if not place.path]

    def inside(source: str) -> bool:
        return any(True for _ in in_environment(source, gathered.places))

    found = distributions(site.source, path, spelled)
    entries = dict(gathered.entries)
    left_out, findings = list(gathered.left_out), list(gathered.findings)
    if site.borrowed:
        # Python imports the distribution of the first folder; skip the files of one with the same name here.
        earlier = {each.name: each for each in gathered.pip}
        shadowed = [each for each in found if each.name in earlier]
        found = [each for each in found if each.name not in earlier]
        hidden = {file for each in shadowed for file in each.files or ()}
        folders = tuple(f"{each.records}/" for each in shadowed)
        for each in shadowed:
            where = os.path.join(site.source, os.path.basename(each.records))
            left_out.append(LeftOut(where, f"{each.name} {earlier[each.name].version} is imported before it"))
        tree = walk(site.source, path, borrowed=True)
        left_out += tree.left_out
        for entry in tree.entries:
            if entry.path in hidden or entry.path.startswith(folders):
                left_out.append(LeftOut(entry.source, "a file of a distribution that another one hides"))
            elif entry.path in entries:
                left_out.append(LeftOut(entry.source, "another file is imported before it"))
            else:
                entries[entry.path] = entry
        entries |= _scripts(found, site, entries)
    brought = find_editable_projects(site, path, found, inside, cache_path)
    for replaced in brought.replaced:
        entries.pop(replaced, None)
    for entry in brought.entries:
        entries.setdefault(entry.path, entry)
    return gathered._replace(
        entries=entries,
        places=(*brought.places, *gathered.places),
        pip=[*gathered.pip, *brought.distributions],
        left_out=[*left_out, *brought.left_out],
        findings=[*findings, *brought.findings],
    )


def _add_local(gathered: Inventory, local: LocalCode, prefix: Prefix) -> Inventory:
    """Add local code, which no installer recorded."""
    site = prefix.site_packages
    ordinary = [each for each in gathered.pip if not each.editable and each.origin != "local"]
    installed = Installed(
        entries=gathered.entries,
        names=frozenset(each.name for each in (*ordinary, *gathered.conda)),
        origins=frozenset(_folder(each.source) for each in ordinary),
        editable=tuple(os.path.realpath(place.source) for place in gathered.places if place.path.startswith(site)),
        projects=tuple(
            folder for each in gathered.pip if each.editable and each.records and (folder := _folder(each.source))
        ),
        prefix=prefix.path,
        folders=tuple(_own_folders(prefix)),
    )
    added = find_local_package(local, site, installed)
    gathered = gathered._replace(
        left_out=[*gathered.left_out, *added.left_out], findings=[*gathered.findings, *added.findings]
    )
    if added.distribution is None:
        return gathered
    return gathered._replace(
        entries=gathered.entries | {entry.path: entry for entry in added.entries},
        places=(*added.places, *gathered.places),
        pip=[*gathered.pip, added.distribution],
    )


def _folder(url: str) -> str:
    """Folder of a `file:` URL, resolved; empty for any other URL."""
    path = url.removeprefix("file://") if url.startswith("file://") else ""
    return os.path.realpath(path if os.path.exists(path) else unquote(path)) if path else ""


def _scripts(found: Iterable[Distribution], site: Site, known: dict[str, FoundFile]) -> dict[str, FoundFile]:
    """Files that the distributions of a borrowed folder record outside it: scripts, manual pages, data."""
    scripts = {}
    for each in found:
        for path in each.files or [f"bin/{name}" for name in each.scripts]:
            if path not in known and not path.startswith(("/", "..", "lib/")):
                entry = find_file(path, os.path.join(site.root, path))
                if entry:
                    scripts[path] = entry
    return scripts
