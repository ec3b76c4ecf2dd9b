"""Locate the environment and its interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.files.small_file import read_text
from lamella.layers.homes import expanded

Kind = Literal["venv", "conda", "plain"]

SHARED = frozenset({"/", "/usr", "/usr/local", "/opt", "/home", "/root", "/srv", "/var", "/tmp"})
"""Prefixes of whole systems: their bytes in a file do not refer to an environment."""

_HERE = (".venv", os.path.join(".pixi", "envs", "default"))
_TOOL_RECEIPTS = ("uv-receipt.toml", "pipx_metadata.json")
_ADVICE = "name the folder that holds bin/python, such as .venv, or activate the environment"


@dataclass(frozen=True, slots=True)
class LocatedPrefix:
    """A folder with a Python in it."""

    prefix: str
    """Absolute, as named, not resolved."""
    executable: str
    kind: Kind
    configuration: dict[str, str]
    """Settings in pyvenv.cfg; empty for any other kind."""


def locate(prefix: str | None = None) -> LocatedPrefix:
    """Locate the environment at `prefix`; without one, the active one, this folder's, or that of `python` on PATH.

    Raises `NotAnEnvironment` if there is none.
    """
    if prefix is not None:
        return _look(prefix, "")
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(name):
            return _look(os.environ[name], f"{name}=")
    for folder in _HERE:
        if os.path.isdir(os.path.join(folder, "bin")):
            return _look(folder, "")
    return _look(_on_path(), "python on PATH: ")


def active_prefix() -> str:
    """Prefix of the environment of a command without an argument.

    VIRTUAL_ENV, CONDA_PREFIX, `.venv` or `.pixi/envs/default` in the working directory, else the prefix
    of `python` on PATH. Raises `NotAnEnvironment` if there is none.
    """
    return locate().prefix


def _look(named: str, how: str) -> LocatedPrefix:
    prefix = os.path.normpath(os.path.join(os.getcwd(), expanded(named)))
    if not os.path.isdir(prefix):
        problem = "not a directory" if os.path.lexists(prefix) else "no such folder"
        raise NotAnEnvironment(f"{how}{prefix}: {problem}; {_ADVICE}")
    if how and _is_tool(prefix):
        raise NotAnEnvironment(
            f"{how}{prefix}: Lamella's own tool environment; name the environment that you want to ship"
        )
    for name in ("python", "python3"):
        executable = os.path.join(prefix, "bin", name)
        if os.path.lexists(executable):
            if not os.path.exists(executable):
                raise NotAnEnvironment(
                    f"{executable}: broken link to {os.path.realpath(executable)}; "
                    "make the environment again with an existing interpreter"
                )
            configuration = _configuration(prefix)
            kind: Kind = "venv" if configuration else "plain"
            if os.path.isdir(os.path.join(prefix, "conda-meta")):
                kind = "conda"
            return LocatedPrefix(prefix, executable, kind, configuration)
    raise NotAnEnvironment(f"{how}{prefix}: not a Python environment (no bin/python); {_ADVICE}")


def _is_tool(prefix: str) -> bool:
    """Whether `prefix` is Lamella's own, from `uv tool` or pipx: found by accident, never meant."""
    return os.path.realpath(prefix) == os.path.realpath(sys.prefix) and any(
        os.path.exists(os.path.join(prefix, receipt)) for receipt in _TOOL_RECEIPTS
    )


def _on_path() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        if not found:
            continue
        try:
            # pyenv's and others' shims are scripts: only the interpreter that they start knows its prefix.
            done = subprocess.run(
                [found, "-I", "-c", "import sys; print(sys.prefix)"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if not done.returncode and done.stdout.strip():
            return done.stdout.strip()
    raise NotAnEnvironment(f"no environment is active, here or on PATH; {_ADVICE}")


def _configuration(prefix: str) -> dict[str, str]:
    """Read pyvenv.cfg as site.py does: `key = value` lines, keys in any case."""
    try:
        lines = read_text(os.path.join(prefix, "pyvenv.cfg")).split("\n")
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {key.strip().lower(): value.strip() for key, _, value in pairs}
    except OSError:
        return {}
