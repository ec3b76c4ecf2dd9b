"""Environments that list their files that name the prefix."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.trees import write

if TYPE_CHECKING:
    from pathlib import Path


def relocatable(folder: Path, prefix: str, files: dict[str, str]) -> Path:
    """Write `files`, whose names may end in * for a program, and the list of them for `prefix`."""
    listed = {"prefix": prefix, "files": [{"path": name.rstrip("*"), "kind": "text"} for name in sorted(files)]}
    return write(folder, files | {".lamella/relocate/pypi-it.json": json.dumps(listed)})
