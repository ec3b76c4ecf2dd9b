"""Files of venv, virtualenv and uv for their own use, which no node needs."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = {
    "pyvenv.cfg": "makes a venv of the folder; on nodes the interpreter is in the environment",
    ".lock": "uv's own file",
    "CACHEDIR.TAG": "uv's file for backup programs",
    ".gitignore": "the venv's file for git",
}
_ACTIVATION = re.compile(r"bin/([Aa]ctivate(\.\w+|_this\.py)?|deactivate(\.\w+)?|pydoc\.bat)")
_VIRTUALENV = re.compile(r"lib/python3\.\d+/site-packages/(_virtualenv\.(py|pth)|[^/]+\.virtualenv)")


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
