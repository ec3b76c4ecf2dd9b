"""What venv, virtualenv and uv put into an environment for themselves, and no environment needs on a node."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_ROOT = {
    "pyvenv.cfg": "makes a venv of the folder: with its interpreter beside it, the environment needs none",
    ".lock": "made by uv for itself",
    "CACHEDIR.TAG": "made by uv for backup programs",
    ".gitignore": "made with the venv, for git",
}
_ACTIVATION = re.compile(r"bin/([Aa]ctivate(\.\w+|_this\.py)?|deactivate(\.\w+)?|pydoc\.bat)")
_VIRTUALENV = re.compile(r"lib/python3\.\d+/site-packages/(_virtualenv\.(py|pth)|[^/]+\.virtualenv)")


def venv_skip(prefix: str) -> Callable[[str, str], str | None]:
    """Why a path of the venv at `prefix` is left out, or None."""

    def skip(path: str, name: str) -> str | None:
        if path in _ROOT:
            return _ROOT[path]
        if path == "lib64" and os.path.islink(os.path.join(prefix, path)):
            return "a second name of lib"
        if path.startswith("bin/") and _ACTIVATION.fullmatch(path):
            return "activates the venv where it was made"
        if name.endswith((".virtualenv", "virtualenv.py", "virtualenv.pth")) and _VIRTUALENV.fullmatch(path):
            return "made by virtualenv for itself"
        return None

    return skip
