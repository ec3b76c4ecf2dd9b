"""Files of venv, virtualenv and uv: those for their own use, and the one that keeps the user's site out."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from lamella.builder.files.generated import generated
from lamella.builder.prefix.walk import find_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder.prefix.interpreter import Prefix
    from lamella.builder.prefix.walk import FoundFile

CONFIGURATION = "pyvenv.cfg"
_ROOT = {
    ".lock": "uv's own file",
    "CACHEDIR.TAG": "uv's file for backup programs",
    ".gitignore": "the venv's file for git",
    # They name indexes, perhaps with a password, and folders of this machine.
    "uv-receipt.toml": "uv's record of how the tool was installed",
    "pipx_metadata.json": "pipx's record of how the tool was installed",
}
_ACTIVATION = re.compile(r"bin/([Aa]ctivate(\.\w+|_this\.py)?|deactivate(\.\w+)?|pydoc\.bat)")
_VIRTUALENV = re.compile(r"lib/python3\.\d+/site-packages/(_virtualenv\.(py|pth)|[^/]+\.virtualenv)")


def isolation(prefix: Prefix, cache_path: str) -> list[FoundFile]:
    """The `pyvenv.cfg` to ship for a venv: without `home`, Python takes no other interpreter for it.

    With it, Python on a node ignores the packages in its user's home as in the venv, or reads them after the
    environment's own. Source: `venv` in site.py, "READ pyvenv.cfg" in getpath.py.
    """
    if prefix.kind != "venv":
        return []
    content = f"include-system-site-packages = {str(prefix.sees_system).lower()}\n".encode()
    entry = find_file(CONFIGURATION, generated(cache_path, CONFIGURATION, content))
    return [entry] if entry else []


def venv_skip(prefix: str) -> Callable[[str, str], str | None]:
    """Return a function for the reason to leave out a path of the venv at `prefix`, or None."""

    def skip(path: str, name: str) -> str | None:
        if path in _ROOT:
            return _ROOT[path]
        if path == "lib64" and os.path.islink(os.path.join(prefix, path)):
            return "a second name of lib"
        if path.startswith("bin/") and _ACTIVATION.fullmatch(path):
            return "activates the venv at its original place"
        if name.endswith((".virtualenv", "virtualenv.py", "virtualenv.pth")) and _VIRTUALENV.fullmatch(path):
            return "virtualenv's own file"
        return None

    return skip
