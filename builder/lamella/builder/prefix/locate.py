"""Which environment is meant, and where its interpreter is."""

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
"""Prefixes that are not an environment's alone: their bytes in a file say nothing about it."""

_HERE = (".venv", os.path.join(".pixi", "envs", "default"))
_TOOL_RECEIPTS = ("uv-receipt.toml", "pipx_metadata.json")
_ADVICE = "name the folder that holds bin/python, such as .venv, or activate the environment"


@dataclass(frozen=True, slots=True)
class Located:
    """A folder with a Python in it."""

    prefix: str
    """Absolute, as it was named, not resolved."""
    executable: str
    kind: Kind
    configuration: dict[str, str]
    """pyvenv.cfg's settings; empty for any other kind."""


def locate(prefix: str | None = None) -> Located:
    """The environment at `prefix`; without one, the active one, the one of this folder, or that of `python` on PATH.

    `NotAnEnvironment` says what is there instead.
    """
    if prefix is not None:
        return _look(prefix, "")
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if os.environ.get(name):
            return _look(os.environ[name], f"{name} names ")
    for folder in _HERE:
        if os.path.isdir(os.path.join(folder, "bin")):
            return _look(folder, "")
    return _look(_on_path(), "python on PATH belongs to ")


def active_prefix() -> str:
    """The prefix of the environment that a command means without naming one: VIRTUAL_ENV, CONDA_PREFIX, `.venv` or
    `.pixi/envs/default` in the working directory, else that of `python` on PATH. `NotAnEnvironment` if there is none.
    """
    return locate().prefix


def _look(named: str, how: str) -> Located:
    prefix = os.path.normpath(os.path.join(os.getcwd(), expanded(named)))
    if not os.path.isdir(prefix):
        what = "a file, not a folder" if os.path.lexists(prefix) else "not there"
        raise NotAnEnvironment(f"{how}{prefix}{', which' if how else ''} is {what}: {_ADVICE}")
    if how and _is_tool(prefix):
        raise NotAnEnvironment(
            f"{how}{prefix}, which is Lamella's own tool environment: name the environment that you want to ship"
        )
    for name in ("python", "python3"):
        executable = os.path.join(prefix, "bin", name)
        if os.path.lexists(executable):
            if not os.path.exists(executable):
                raise NotAnEnvironment(
                    f"{executable} leads to {os.path.realpath(executable)}, which is gone: "
                    "make the environment anew with an interpreter that is there"
                )
            configuration = _configuration(prefix)
            kind: Kind = "venv" if configuration else "plain"
            if os.path.isdir(os.path.join(prefix, "conda-meta")):
                kind = "conda"
            return Located(prefix, executable, kind, configuration)
    raise NotAnEnvironment(
        f"{how}{prefix}{', which' if how else ''} holds no Python environment (no bin/python): {_ADVICE}"
    )


def _is_tool(prefix: str) -> bool:
    """Whether `prefix` is what `uv tool` or pipx made for Lamella: found by accident, never meant."""
    return os.path.realpath(prefix) == os.path.realpath(sys.prefix) and any(
        os.path.exists(os.path.join(prefix, receipt)) for receipt in _TOOL_RECEIPTS
    )


def _on_path() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        if not found:
            continue
        try:
            # pyenv's and others' shims are scripts: only what they start knows its prefix.
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
    raise NotAnEnvironment(f"no environment is active, here or on PATH: {_ADVICE}")


def _configuration(prefix: str) -> dict[str, str]:
    """pyvenv.cfg as site.py reads it: `key = value` lines, keys in any case."""
    try:
        lines = read_text(os.path.join(prefix, "pyvenv.cfg")).split("\n")
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {key.strip().lower(): value.strip() for key, _, value in pairs}
    except OSError:
        return {}
