"""Files at the top of an installed project that do not ship with it: scripts, configuration, data."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import has_code, is_beside, never, top_of
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_SHOWN = 4
_MOST_LOOKED_AT = 1000
# Files about the project and for its tools: no node needs them.
_ABOUT = (
    ".cfg", ".egg-info", ".in", ".lock", ".lock.yml", ".md", ".rst", ".toml", ".txt", ".whl",
    "compose.yaml", "compose.yml", "containerfile", "dockerfile", "justfile", "makefile", "pixi.lock",
)  # fmt: skip
_ABOUT_BEGINS = (
    "authors",
    "changelog",
    "changes",
    "codeowners",
    "copying",
    "environment.y",
    "licen",
    "mkdocs",
    "notice",
)


def beside_installed(folder: str, shipped: Sequence[str], include: Iterable[str]) -> Finding | None:
    """Return the note on the files of the project in `folder` that do not ship; None if all ship.

    `shipped`: resolved paths of what its editable install ships. `include`: what the user adds.
    """
    included = {os.path.realpath(os.path.join(folder, path)) for path in include}
    found = [name for name in _names(folder, shipped) if os.path.realpath(os.path.join(folder, name)) not in included]
    if not found:
        return None
    listed = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if found[_SHOWN:] else "")
    flags = " ".join(f"--include {name.rstrip('/')}" for name in found[:_SHOWN])
    message = f"{folder}: {listed} beside the installed project: left out; ship them with {flags}"
    return Finding("note", "local", folder, message)


def _names(folder: str, shipped: Sequence[str]) -> list[str]:
    """Names at the top of `folder`, scripts first; folders end with a slash."""
    ignore = Ignore(folder, top=top_of(folder))
    real = os.path.realpath(folder)
    whole = real in shipped
    if not whole and any(real.startswith(f"{each}/") for each in shipped):
        return []
    found = []
    for item in os.scandir(folder):
        name, is_folder = item.name, item.is_dir()
        path = os.path.join(real, name)
        if item.is_symlink() and not os.path.realpath(path).startswith(f"{real}/"):
            continue
        if name.startswith(".") or never(name, name, item.path) or is_beside(name, folder=is_folder):
            continue
        if ignore.ignored(name, folder=is_folder) or _is_about(name):
            continue
        if any(each == path or each.startswith(f"{path}/") for each in shipped):
            continue
        # The project's code, of which an ordinary install has a copy.
        if is_folder and (name == "src" or os.path.isfile(os.path.join(path, "__init__.py"))):
            continue
        is_code = has_code(item.path) if is_folder else name.endswith((".py", ".so"))
        # A folder on Python's path ships its modules, and nothing else.
        if (whole and is_code) or (is_folder and not _has_files(item.path)):
            continue
        found.append(f"{name}/" if is_folder else name)
    return sorted(found, key=lambda name: (not name.endswith(".py"), name))


def _is_about(name: str) -> bool:
    lower = name.lower()
    return lower.endswith(_ABOUT) or lower.startswith(_ABOUT_BEGINS)


def _has_files(folder: str) -> bool:
    return any(names or number == _MOST_LOOKED_AT for number, (_, _, names) in enumerate(os.walk(folder)))
