"""Files of Lamella's own in an environment that it exported or mounted: they are written anew, not shipped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.mounting.source_checks import NAME as CHECKS_SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable

REASON = "made by Lamella for an export or a mount"
_FOLDER = ".lamella"
_SCRIPTS = frozenset(
    {"bin/activate", "bin/activate.fish", "bin/activate.csh", "bin/lamella-unpack", "bin/conda-unpack"}
)


def without_export(root: str, skip: Callable[[str, str], str | None]) -> Callable[[str, str], str | None]:
    """Return `skip`, with a reason for Lamella's own files in the environment at `root`."""
    scripts = _SCRIPTS if os.path.isfile(os.path.join(root, _FOLDER, "prefix")) else frozenset()

    def reason(path: str, name: str) -> str | None:
        return REASON if path == _FOLDER or name == CHECKS_SOURCES or path in scripts else skip(path, name)

    return reason
