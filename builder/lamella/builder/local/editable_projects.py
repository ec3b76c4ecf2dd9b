"""Projects that an environment imports from other folders of this disk, as packages of local origin."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.files.generated import generated
from lamella.builder.installed.distributions import Distribution, distributions, normalised
from lamella.builder.local.project_files import project_tree, too_broad
from lamella.builder.local.pth_pointers import Pointer, egg_links, pointers
from lamella.builder.prefix.walk import find_file
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from lamella.builder.prefix.places import Place
    from lamella.builder.prefix.sites import Site
    from lamella.builder.prefix.walk import FoundFile

_POINTER = "names folders of this machine, whose code ships in its place"


class EditableProjects(NamedTuple):
    """Packages from editable installs and `.pth` files."""

    distributions: list[Distribution]
    """Distributions; those that are editable have their projects' files. Also projects without metadata."""
    entries: list[FoundFile]
    places: list[Place]
    replaced: list[str]
    """Paths of the files and links whose targets ship in their place."""
    left_out: list[LeftOut]
    findings: list[Finding]


def find_editable_projects(
    site: Site, path: str, found: Sequence[Distribution], inside: Callable[[str], bool], cache_path: str
) -> EditableProjects:
    """Read the projects that the files of `site` (which belongs at `path`) point to; `found` are its distributions."""
    result = EditableProjects(list(found), [], [], [], [], [])
    linked = _linked(site, path, result)
    for pointer in pointers(site.source, path, inside):
        for named in pointer.unknown:
            message = (
                f"{pointer.file}: its code names {named}, from which nothing ships; reinstall that project without -e, "
                "or ship the folder with --local or --include"
            )
            result.findings.append(Finding("warning", "editable", pointer.file, message))
        if not (pointer.roots or pointer.gone):
            continue
        if [root.path for root in pointer.roots] == [f"{path}/{pointer.file}"]:
            result.replaced.append(f"{path}/{pointer.file}")  # a link: its target has the same path
        elif kept := _rest(pointer, path, cache_path):
            _leave_out([f"{module}.py" for module in pointer.companions], site, path, result)
            _keep(kept, result)
        else:
            _leave_out([pointer.file, *(f"{module}.py" for module in pointer.companions)], site, path, result)
        for gone in pointer.gone:
            message = f"{pointer.file}: cannot ship its code; no such file or folder: {gone}"
            result.findings.append(Finding("warning", "editable", pointer.file, message))
        for root in pointer.roots:
            if too_broad(root.source):
                message = f"{pointer.file}: left out its code, which is more than a project: {root.source}"
                result.findings.append(Finding("error", "editable", pointer.file, message))
                continue
            _ship(root, _owner(pointer, root, path, result.distributions, linked), result)
    return result


def _linked(site: Site, path: str, result: EditableProjects) -> dict[str, str]:
    """Folder to the name of the project that `python setup.py develop` linked; their metadata is in it."""
    linked = {}
    for name, folder in egg_links(site.source):
        _leave_out([name], site, path, result)
        project = normalised(name.removesuffix(".egg-link"))
        for each in distributions(folder, path, ()):
            if each.name == project:
                result.distributions.append(replace(each, origin="local", files={}, editable=True))
                linked[os.path.realpath(folder)] = project
    return linked


def _leave_out(names: Iterable[str], site: Site, path: str, result: EditableProjects) -> None:
    for name in names:
        where = os.path.join(site.source, name) if site.borrowed else f"{path}/{name}"
        result.left_out.append(LeftOut(where, _POINTER))
        result.replaced.append(f"{path}/{name}")


def _rest(pointer: Pointer, path: str, cache_path: str) -> FoundFile | None:
    """The pointer's file with only the lines that a node needs; None if there are none."""
    if not pointer.rest:
        return None
    content = "".join(f"{line}\n" for line in pointer.rest).encode("utf-8", "surrogateescape")
    return find_file(f"{path}/{pointer.file}", generated(cache_path, pointer.file, content))


def _keep(entry: FoundFile, result: EditableProjects) -> None:
    """Ship `entry` in place of the file at its path, whose recorded hash does not apply to it."""
    result.replaced.append(entry.path)
    result.entries.append(entry)
    for number, each in enumerate(result.distributions):
        if entry.path in (each.files or ()):
            result.distributions[number] = replace(each, files=dict(each.files or {}) | {entry.path: ""})


def _owner(
    pointer: Pointer, root: Place, path: str, found: Iterable[Distribution], linked: Mapping[str, str]
) -> Distribution:
    """The distribution that `pointer` belongs to, or a new one."""
    by_name = {each.name: each for each in found}
    for each in found:
        if f"{path}/{pointer.file}" in (each.files or ()):
            return each
    real = os.path.realpath(root.source)
    if real in linked:
        return by_name[linked[real]]
    stem = pointer.file.removesuffix(".pth").removeprefix("__editable__.")
    for candidate in (stem, re.sub(r"-\d.*$", "", stem), stem.removesuffix("-editable").removesuffix("_editable")):
        name = normalised(candidate.lstrip("_"))
        if name in by_name:
            return by_name[name]
    name = normalised(
        os.path.basename(real) if os.path.basename(real) != "src" else os.path.basename(os.path.dirname(real))
    )
    return by_name.get(name) or Distribution("local", name, "", "", {})


def _ship(root: Place, owner: Distribution, result: EditableProjects) -> None:
    """Add the files of `root` to those of `owner`."""
    keep = frozenset({os.path.basename(owner.records)}) if owner.records.endswith(".egg-info") else frozenset()
    tree = project_tree(root, keep, owner.name)
    taken = {entry.path for entry in result.entries}
    entries = [entry for entry in tree.entries if entry.path not in taken]
    result.entries.extend(entries)
    result.places.append(root)
    result.left_out.extend(tree.left_out)
    files = dict(owner.files or {}) | {entry.path: "" for entry in entries}
    shipped = replace(owner, origin="local", files=files, source=owner.source or f"file://{root.source}", editable=True)
    if owner in result.distributions:
        result.distributions[result.distributions.index(owner)] = shipped
    else:
        result.distributions.append(shipped)
