"""What activating an environment sets, without a shell: variables, and the scripts that conda packages bring.

Sources: venv's activate script; conda's `conda.activate` (environment variables of packages and of `conda-meta/state`,
scripts in name order); PEP 405.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_VARIABLES = "etc/conda/env_vars.d"
_STATE = "conda-meta/state"
_NAME = r"[A-Za-z_][A-Za-z0-9_]*"  # what shells take


def variables(prefix: str, before: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of a process in the environment at `prefix`, started by one that had `before`.

    An environment that was active there is left first: its bin folder goes from PATH, its packages from PYTHONPATH.
    PYTHONHOME names another interpreter's library, so it always goes.
    """
    after = dict(before)
    left = [path for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if (path := after.pop(name, ""))]
    for name in ("PYTHONHOME", "VIRTUAL_ENV_PROMPT", "CONDA_DEFAULT_ENV", "CONDA_PROMPT_MODIFIER", "CONDA_SHLVL"):
        after.pop(name, None)
    search = [path for path in after.get("PATH", os.defpath).split(os.pathsep) if not _is_below(path, left)]
    after["PATH"] = os.pathsep.join([f"{prefix}/bin", *search])
    if "PYTHONPATH" in after:
        modules = [path for path in after["PYTHONPATH"].split(os.pathsep) if not _is_below(path, left)]
        after["PYTHONPATH"] = os.pathsep.join(modules)
        if not after["PYTHONPATH"]:
            del after["PYTHONPATH"]
    if not os.path.isdir(f"{prefix}/conda-meta"):
        after["VIRTUAL_ENV"] = prefix
        return after
    after |= {"CONDA_PREFIX": prefix, "CONDA_DEFAULT_ENV": prefix, "CONDA_SHLVL": "1"}
    return after | conda_variables(prefix)


def command(prefix: str, command: Sequence[str]) -> list[str]:
    """`command`, behind a shell that sources the environment's activation scripts first, if it has any."""
    scripts = _activation_scripts(prefix)
    if not scripts:
        return list(command)
    # Most of these scripts were only ever tried with bash; /bin/sh is what every machine has.
    shell = next((path for path in (f"{prefix}/bin/bash", "/bin/bash") if os.access(path, os.X_OK)), "/bin/sh")
    quoted = [script.replace("'", "'\\''") for script in scripts]
    source = "".join(f". '{script}'\n" for script in quoted)
    return [shell, "-c", source + 'exec "$@"', "lamella", *command]


def conda_variables(prefix: str) -> dict[str, str]:
    """The variables that conda packages, and `conda env config vars set`, ask for; no file outside of `prefix` is read."""
    names = os.listdir(f"{prefix}/{_VARIABLES}") if _is_inside(prefix, _VARIABLES) else []
    paths = [*(f"{_VARIABLES}/{name}" for name in names), _STATE]
    return variables_of({path: _read(prefix, path) for path in paths if sets_variables(path)})


def sets_variables(path: str) -> bool:
    """Whether the file at `path`, relative to the prefix, lists variables that activation sets."""
    return path == _STATE or (os.path.dirname(path) == _VARIABLES and path.endswith(".json"))


def variables_of(files: Mapping[str, bytes]) -> dict[str, str]:
    """Return the variables that `files` list: path to content, of paths for which `sets_variables` holds."""
    found: dict[str, str] = {}
    for path in sorted(files):
        if path != _STATE:
            found |= _strings(_parsed(files[path]))
    # `conda env config vars set` wins over packages.
    return found | _strings(_parsed(files.get(_STATE, b"")).get("env_vars"))


def _activation_scripts(prefix: str) -> list[str]:
    folder = f"{prefix}/etc/conda/activate.d"
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [f"{folder}/{name}" for name in names if name.endswith(".sh")]


def _read(prefix: str, path: str) -> bytes:
    try:
        if not _is_inside(prefix, path):
            return b""
        with open(f"{prefix}/{path}", "rb") as file:
            return file.read()
    except (OSError, ValueError):
        return b""


def _parsed(content: bytes) -> dict[str, object]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return {}  # as conda does: an environment with a broken state file still activates
    return value if isinstance(value, dict) else {}


def _is_inside(prefix: str, path: str) -> bool:
    # A layer can bring a link to a private file of the exporting user, which an export would include.
    found = os.path.realpath(f"{prefix}/{path}")
    return found.startswith(os.path.realpath(prefix) + "/") and os.path.exists(found)


def _strings(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {name: text for name, text in value.items() if re.fullmatch(_NAME, name) and _can_be_set(text)}


def _can_be_set(text: object) -> bool:
    # JSON holds NULs and halves of surrogate pairs, an environment neither.
    try:
        return isinstance(text, str) and b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
