"""Collect every file that may ship, by names, times and records, before any file is read."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import unquote

from lamella.builder.files.generated import generated
from lamella.builder.installed.conda import META, conda_packages, conda_skip
from lamella.builder.installed.conda_origins import origins
from lamella.builder.installed.distributions import Distribution, distributions
from lamella.builder.installed.eggs import eggs
from lamella.builder.installed.inventory import Inventory
from lamella.builder.local.code_roots import Installed
from lamella.builder.local.editable_projects import find_editable_projects
from lamella.builder.local.import_path import target_folders
from lamella.builder.local.working_directory import find_local_package
from lamella.builder.prefix import base_python
from lamella.builder.prefix.exported import without_export
from lamella.builder.prefix.linked_folders import linked_folders, walk_prefix
from lamella.builder.prefix.locate import SHARED
from lamella.builder.prefix.places import Place, in_environment, made_at, places
from lamella.builder.prefix.sites import Site, is_system, sites, user_base
from lamella.builder.prefix.venv import isolation, venv_skip
from lamella.builder.prefix.walk import FoundFile, Tree, find_file
from lamella.builder.scanning import symlinks
from lamella.builder.scanning.archives import add_archives
from lamella.builder.scanning.borrowed_sites import visible, without_files
from lamella.builder.scanning.link_targets import LinkTargets
from lamella.layers.published.conda_meta import ORIGINS
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.builder.local.code_roots import LocalCode
    from lamella.builder.prefix.interpreter import Prefix


def collect(prefix: Prefix, local: LocalCode, cache_path: str) -> Inventory:
    """Collect the prefix, the folders that it borrows, and local code.

    Raises `CannotBuild` for a folder that cannot be listed.
    """
    own, base = _trees(prefix)
    conda, findings = conda_packages(prefix.path) if prefix.kind == "conda" else ([], [])
    origin = _conda_origins(prefix, conda, cache_path)
    conda += [package for package, _ in origin]
    # A file of the environment wins over its base interpreter's at the same path, except `python` itself.
    borrowed = {entry.path for entry in base.entries} - {entry.path for entry in own.entries}
    executables = (
        [] if prefix.kind == "conda" or not base.entries else base_python.executables(prefix.path, prefix.python)
    ) + isolation(prefix, cache_path)
    merged = {
        entry.path: entry for entry in (*base.entries, *own.entries, *executables, *(entry for _, entry in origin))
    }
    python = borrowed | {entry.path for entry in executables}
    if prefix.kind == "plain" and not base.entries:
        python = {path for path in merged if base_python.owns(path, prefix.python)}
    gathered = Inventory(
        merged, places(prefix), conda, [], frozenset(python), [*own.left_out, *base.left_out], findings, {}
    )
    for site in sites(prefix):
        gathered = _add_site(gathered, site, prefix.site_packages, cache_path)
    for folder in target_folders(local.folder):
        if not any(Place(own, "").holds(folder) for own in _own_folders(prefix)):
            gathered = _add_site(gathered, Site(folder, True, target=True), prefix.site_packages, cache_path)
    gathered = add_archives(gathered, local, prefix.site_packages, cache_path)
    findings = [*gathered.findings, *_moved(prefix), *_users_own(prefix, gathered)]
    gathered = gathered._replace(findings=findings)
    gathered = _add_local(gathered, local, prefix)
    resolved = symlinks.resolve(gathered.entries, gathered.places, gathered.left_out, _link_targets(prefix, gathered))
    entries = {entry.path: entry for entry in resolved.entries}
    # An export of Debian's Python has its link on disk. In a conda environment, a record owns such a link.
    exported = prefix.kind == "plain" and os.path.islink(os.path.join(prefix.path, prefix.stdlib, "dist-packages"))
    for path, target in _second_names(prefix, entries) if base.entries or exported else ():
        entries[path] = FoundFile(path, prefix.python.stdlib, os.stat(prefix.python.stdlib), target)
        python.add(path)
    return gathered._replace(
        entries=entries,
        python=frozenset(python),
        left_out=[*gathered.left_out, *resolved.left_out],
        findings=[*gathered.findings, *resolved.findings],
        expected=resolved.expected,
    )


def _second_names(prefix: Prefix, entries: Mapping[str, FoundFile]) -> Iterator[tuple[str, str]]:
    """Links in the interpreter's layer, with their targets, to the folders that its Python looks for by other names."""
    python = prefix.python
    if python.debian:
        # With its own interpreter, Debian's site module reads this folder.
        yield f"{prefix.stdlib}/dist-packages", "site-packages"
    if python.platlibdir != "lib" and not any(path.startswith(f"{python.platlibdir}/") for path in entries):
        yield python.platlibdir, "lib"


def _conda_origins(
    prefix: Prefix, packages: list[Distribution], cache_path: str
) -> list[tuple[Distribution, FoundFile]]:
    """Return the file of what conda knows of this environment alone, as a package of its own."""
    if not packages:
        return []
    entry = find_file(ORIGINS, generated(cache_path, os.path.basename(ORIGINS), origins(prefix.path, packages)))
    return [(Distribution("unowned", META, "", "", {ORIGINS: ""}), entry)] if entry else []


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
    linked = linked_folders(prefix.path, prefix.python.short)
    if prefix.kind == "venv":
        where = frozenset({"", "bin", prefix.site_packages})
        own = walk_prefix(prefix.path, linked, without_export(prefix.path, venv_skip(prefix.path)), where)
        return own, base_python.borrowed(prefix.python)
    if is_system(prefix):
        return Tree([], []), base_python.borrowed(prefix.python)
    skip_stdlib = base_python.stdlib_skip(prefix.stdlib, sites=False)
    if prefix.kind == "plain":
        return walk_prefix(prefix.path, linked, without_export(prefix.path, skip_stdlib)), Tree([], [])
    return walk_prefix(prefix.path, linked, without_export(prefix.path, conda_skip)), Tree([], [])


def _add_site(gathered: Inventory, site: Site, path: str, cache_path: str) -> Inventory:
    """Add the distributions of one more folder of packages, and the projects that it points to."""
    spelled = [place.source for place in gathered.places if not place.path]

    def inside(source: str) -> bool:
        return any(True for _ in in_environment(source, gathered.places))

    found = [*distributions(site.source, path, spelled), *eggs(site.source, path)]
    entries = dict(gathered.entries)
    left_out, findings = list(gathered.left_out), list(gathered.findings)
    if site.borrowed:
        borrowed = visible(site, path, found, gathered.pip, entries)
        findings += borrowed.findings
        found = borrowed.distributions
        entries |= borrowed.entries
        left_out += borrowed.left_out
    brought = find_editable_projects(site, path, found, inside, cache_path)
    for replaced in brought.replaced:
        entries.pop(replaced, None)
    for entry in brought.entries:
        entries.setdefault(entry.path, entry)
    pip, searched = brought.distributions, gathered.searched
    if site.borrowed:
        searched += (site.source, f"{site.root}/bin")
        # A path that is left out of a borrowed folder is listed as on this disk, not as recorded.
        gone = {path for path in brought.replaced if path not in entries}
        pip = [without_files(each, gone) for each in pip]
    return gathered._replace(
        entries=entries,
        places=(*brought.places, *gathered.places),
        pip=[*gathered.pip, *pip],
        left_out=[*left_out, *brought.left_out],
        findings=[*findings, *brought.findings],
        searched=searched,
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
    found = added.distribution
    # Files beside an installed project, by --include: the project has a layer of its own.
    if any(each.name == found.name for each in (*gathered.pip, *gathered.conda)):
        found = replace(found, name=f"{found.name}-local")
    return gathered._replace(
        entries=gathered.entries | {entry.path: entry for entry in added.entries},
        places=(*added.places, *gathered.places),
        pip=[*gathered.pip, found],
    )


def _folder(url: str) -> str:
    """Folder of a `file:` URL, resolved; empty for any other URL."""
    path = url.removeprefix("file://") if url.startswith("file://") else ""
    return os.path.realpath(path if os.path.exists(path) else unquote(path)) if path else ""
