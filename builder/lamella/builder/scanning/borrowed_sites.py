"""Merge a folder of packages outside the environment into it: only what Python imports from that folder."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.local.shadowing import InstalledModules
from lamella.builder.prefix.walk import FoundFile, find_file, walk
from lamella.builder.scanning.symlinks import folders
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.sites import Site


_BESIDE = "a script or data of a package, which ships at its place in the environment"

_LOCK = "uv's own file"


class Visible(NamedTuple):
    """Part of a folder of packages that Python imports."""

    entries: dict[str, FoundFile]
    """Files by path, with the scripts and data outside the folder."""
    distributions: list[Distribution]
    left_out: list[LeftOut]
    findings: list[Finding]


def visible(
    site: Site,
    path: str,
    found: Sequence[Distribution],
    earlier: Iterable[Distribution],
    entries: Mapping[str, FoundFile],
) -> Visible:
    """Select from `site`, which belongs at `path`: `found` are its distributions.

    `earlier` and `entries` are the distributions and files of the folders that Python searches before it.
    """
    found, beside = _of_target(found, path) if site.target else (found, frozenset())
    first = {each.name: each for each in reversed([*earlier])}
    shadowed = [each for each in found if each.name in first]
    left_out = [
        LeftOut(
            os.path.join(site.source, os.path.basename(each.records)),
            f"{each.name} {first[each.name].version} is imported before it",
        )
        for each in shadowed
    ]
    recorded = {file for each in shadowed for file in each.files or ()}
    metadata = tuple(f"{each.records}/" for each in shadowed)
    lock = f"{path}/.lock" if site.target else ""
    tree = walk(
        site.source,
        path,
        lambda inner, _: _LOCK if inner == lock else _BESIDE if inner in beside else None,
        borrowed=True,
    )
    left_out += tree.left_out
    above = set(folders(entries))
    modules = InstalledModules(entries, path)
    tops = os.listdir(site.source) if entries else []
    hidden = {f"{path}/{top}" for top in tops if modules.of(f"{path}/{top}", os.path.join(site.source, top))}
    kept: dict[str, FoundFile] = {}
    gone: set[str] = set()
    start = len(path) + 1
    for entry in tree.entries:
        if entry.path in recorded or entry.path.startswith(metadata):
            left_out.append(LeftOut(entry.source, "a file of a distribution that another one hides"))
            continue
        top = path + "/" + entry.path[start:].partition("/")[0]
        if top in hidden or entry.path in entries or _is_in_the_way(entry.path, entries, above):
            left_out.append(LeftOut(entry.source, "another file is imported before it"))
            gone.add(entry.path)
        else:
            kept[entry.path] = entry
    ours = [without_files(each, gone) for each in found if each.name not in first]
    # Python searches PYTHONPATH before the environment: with another version there, a node imports what this machine doesn't.
    findings = [
        Finding(
            "warning",
            "shadowed",
            each.name,
            f"{each.name}: {first[each.name].version} ships from the environment, though Python imports {each.version} "
            f"from {site.source} here; install one version in both",
        )
        for each in (shadowed if site.target else ())
        if each.version != first[each.name].version
    ]
    return Visible(kept | _scripts(ours, site, entries), ours, left_out, findings)


def _of_target(found: Sequence[Distribution], path: str) -> tuple[list[Distribution], frozenset[str]]:
    """Distributions of a `--target` folder with scripts and data at their places in a prefix, and these folders' paths.

    pip records `../../bin/x`, relative to the folder in which it builds the target, and uv `bin/x`.
    """
    moved = [
        replace(each, files={_in_prefix(inner, path): digest for inner, digest in (each.files or {}).items()})
        for each in found
    ]
    outside = [inner for each in moved for inner in each.files or () if not inner.startswith(f"{path}/")]
    return moved, frozenset(f"{path}/{inner.partition('/')[0]}" for inner in outside)


def _in_prefix(inner: str, path: str) -> str:
    if inner.startswith(f"{path}/"):
        return inner[len(path) + 1 :] if inner.startswith(f"{path}/bin/") else inner
    above = os.path.normpath(os.path.join(path, "..", "..")) + "/"
    return inner.removeprefix(above)


def without_files(each: Distribution, gone: set[str]) -> Distribution:
    """Return `each` without the files of these paths in its record."""
    if gone.isdisjoint(each.files or ()):
        return each
    return replace(each, files={path: digest for path, digest in (each.files or {}).items() if path not in gone})


def _is_in_the_way(path: str, entries: Container[str], folders: Container[str]) -> bool:
    """Whether `entries` have a folder at `path`, or a file or link above it."""
    above = path.rpartition("/")[0]
    while above and above not in folders:
        if above in entries:
            return True
        above = above.rpartition("/")[0]
    return path in folders


def _scripts(found: Iterable[Distribution], site: Site, known: Container[str]) -> dict[str, FoundFile]:
    """Files that the distributions of a borrowed folder record outside it: scripts, manual pages, data."""
    scripts = {}
    for each in found:
        for path in each.files or [f"bin/{name}" for name in each.scripts]:
            if path not in known and not path.startswith(("/", "..", "lib/")):
                entry = find_file(path, os.path.join(site.root, path))
                if entry:
                    scripts[path] = entry
    return scripts
