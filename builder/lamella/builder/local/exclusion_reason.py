"""Why a path of a project does not ship, as far as its name, place and ignore files tell."""

from __future__ import annotations

import os

from lamella.builder.local.ignore import Ignore
from lamella.builder.local.project_files import is_repository, never, too_broad, top_of


def exclusion_reason(path: str) -> str:
    """Return the reason for the absolute `path`, or for a folder above it in its project; empty if it ships."""
    folder = os.path.dirname(path)
    top = top_of(folder)
    if too_broad(top):
        return ""
    ignore = Ignore(top, top=top)
    inner = os.path.relpath(path, top)
    parts = inner.split(os.sep)
    for end in range(1, len(parts) + 1):
        upper = os.sep.join(parts[:end])
        source, name = os.path.join(top, upper), parts[end - 1]
        is_folder = os.path.isdir(source) and not os.path.islink(source)
        where = "" if source == path else f"in {source}: "
        if reason := never(upper, name, source):
            return f"{where}never ships: {reason}"
        if ignore.ignored(upper, folder=is_folder):
            return f"{where}ignored by .gitignore or .lamellaignore"
        if is_folder and is_repository(source):
            return f"{where}a repository of its own"
        if name.startswith("."):
            return f"{where}hidden, or a tool's own"
    return ""
