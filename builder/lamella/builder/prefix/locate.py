"""Locate the environment and its interpreter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.files.small_file import read_text
from lamella.builder.prefix.systems import INTERPRETERS, System
from lamella.layers.settings.homes import expanded

Kind = Literal["venv", "conda", "plain"]

SHARED = frozenset({"/", "/usr", "/usr/local", "/opt", "/home", "/root", "/srv", "/var", "/tmp"})
"""Prefixes of whole systems: their bytes in a file do not refer to an environment."""

ADVICE = "name the folder that holds bin/python, such as .venv, or activate the environment"


@dataclass(frozen=True, slots=True)
class LocatedPrefix:
    """A folder with a Python in it."""

    prefix: str
    """Absolute, as named, not resolved."""
    executable: str
    kind: Kind
    configuration: dict[str, str]
    """Settings in pyvenv.cfg; empty without one."""


def locate(named: str, *, how: str = "") -> LocatedPrefix:
    """Locate the environment at the folder `named`; `how` begins each message: what named it.

    Raises `NotAnEnvironment` for a folder without a Python.
    """
    prefix = os.path.normpath(os.path.join(os.getcwd(), expanded(named)))
    if not os.path.isdir(prefix):
        problem = "not a directory" if os.path.lexists(prefix) else "no such folder"
        raise NotAnEnvironment(f"{how}{prefix}: {problem}; {ADVICE}")
    for name in INTERPRETERS:
        executable = os.path.join(prefix, *name.split("/"))
        if os.path.lexists(executable):
            if not os.path.exists(executable):
                raise NotAnEnvironment(broken(executable))
            settings = configuration(prefix)
            # Python takes a pyvenv.cfg without `home` for settings of an interpreter's own prefix.
            kind: Kind = "venv" if "home" in settings else "plain"
            if os.path.isdir(os.path.join(prefix, "conda-meta")):
                kind = "conda"
            return LocatedPrefix(prefix, executable, kind, settings)
    raise NotAnEnvironment(f"{how}{prefix}: not a Python environment (no {System.here().interpreter}); {ADVICE}")


def broken(executable: str) -> str:
    """Return the message for a link to an interpreter that is gone, or in a folder that is closed to this user."""
    target = os.path.realpath(executable)
    try:
        os.stat(executable)
    except PermissionError:
        return (
            f"{executable}: no permission to read {target}; run as a user who may, or change its folders' permissions"
        )
    except OSError:
        pass
    return f"{executable}: broken link to {target}; make the environment again with an existing interpreter"


def configuration(prefix: str) -> dict[str, str]:
    """Read pyvenv.cfg as site.py does: `key = value` lines, keys in any case."""
    try:
        lines = read_text(os.path.join(prefix, "pyvenv.cfg")).split("\n")
        pairs = (line.partition("=") for line in lines if "=" in line)
        return {key.strip().lower(): value.strip() for key, _, value in pairs}
    except OSError:
        return {}
