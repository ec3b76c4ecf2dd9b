"""Ship the zip files and eggs of PYTHONPATH: in site-packages, with a `.pth` file that names them there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.files.generated import generated
from lamella.builder.installed.distributions import Distribution, normalised
from lamella.builder.installed.eggs import egg
from lamella.builder.local.import_path import archives
from lamella.builder.prefix.places import Place, in_environment
from lamella.builder.prefix.walk import find_file, walk
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from lamella.builder.installed.inventory import Inventory
    from lamella.builder.local.code_roots import LocalCode

POINTER = "lamella-pythonpath.pth"


def add_archives(gathered: Inventory, local: LocalCode, site: str, cache_path: str) -> Inventory:
    """Add the archives on PYTHONPATH, which belong in `site`. Python finds them there after site-packages."""
    entries, places = dict(gathered.entries), list(gathered.places)
    pip, findings = list(gathered.pip), list(gathered.findings)
    lines: list[str] = []
    for source in archives(local.folder):
        own = next((path for path in in_environment(source, gathered.places) if path in entries), "")
        path = own or f"{site}/{os.path.basename(source)}"
        if not own and path in entries:
            message = f"{source}: left out, since {path} is in the environment; rename one of the two"
            findings.append(Finding("warning", "shadowed", path, message))
            continue
        lines.append(os.path.relpath(path, site))
        if own:
            continue
        file = find_file(path, os.path.realpath(source))
        added = [file] if file else walk(source, path, borrowed=True).entries
        entries |= {entry.path: entry for entry in added}
        places += [Place(spelling, path) for spelling in dict.fromkeys((source, os.path.realpath(source)))]
        files = dict.fromkeys((entry.path for entry in added), "")
        pip.append(egg(source, path) or Distribution("local", _name(source), "", "", files, source=f"file://{source}"))
    if not lines:
        return gathered._replace(findings=findings)
    pointer = find_file(
        f"{site}/{POINTER}", generated(cache_path, POINTER, "".join(f"{line}\n" for line in lines).encode())
    )
    if pointer:
        entries[pointer.path] = pointer
        places.append(Place(pointer.source, pointer.path))
        pip.append(Distribution("local", "pythonpath", "", "", {pointer.path: ""}))
    return gathered._replace(entries=entries, places=tuple(places), pip=pip, findings=findings)


def _name(source: str) -> str:
    return normalised(os.path.basename(source).rpartition(".")[0]) or "archive"
