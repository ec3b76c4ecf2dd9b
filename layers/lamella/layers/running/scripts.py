"""Scripts of the user's own: a command sees this machine's files, and the environment's code as modules."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PYTHON = re.compile(r"python(?:3(?:\.\d+)?)?")
_WITH_VALUE = ("-W", "-X", "--check-hash-based-pycs")
_LIBRARY = re.compile(r"python3\.\d+t?")
_COMPARED = 1 << 20


def missing(prefix: str, command: Sequence[str]) -> str:
    """Return why the script of `command` can't be run; empty if it is on this machine, or the command runs none."""
    script = _script(command)
    return _missing(prefix, script) if script.endswith(".py") and not os.path.lexists(script) else ""


def not_a_command(prefix: str, name: str) -> str:
    """Return the advice for a name that is not a program of the environment or on PATH; empty unless it is a script's."""
    if not name.endswith(".py"):
        return ""
    return f"{name}: not a program; use python {name}" if os.path.lexists(name) else _missing(prefix, name)


def _missing(prefix: str, script: str) -> str:
    if shipped := _shipped(prefix, script):
        return f"{script}: no such file on this machine; the environment has it: run {_advice(script, shipped)}"
    return (
        f"{script}: no such file on this machine, whose files the command sees; push it with the environment, then "
        f"run {_advice(script, '')}"
    )


def note(prefix: str, command: Sequence[str]) -> str:
    """Return a sentence if this machine's script runs though the environment has another one of that name; else empty."""
    script = _script(command)
    if not script or os.path.isabs(script) or not os.path.isfile(script):
        return ""
    shipped = _shipped(prefix, script)
    if not shipped or _same(script, shipped):
        return ""
    return f"{script}: runs this machine's file, which differs from the environment's; run that with {_advice(script, shipped)}"


def _script(command: Sequence[str]) -> str:
    """The Python script that `command` names; empty for a module, a program text, or another program."""
    if command[0].endswith(".py") and "/" in command[0]:
        return command[0]
    if not _PYTHON.fullmatch(os.path.basename(command[0])):
        return ""
    words = iter(command[1:])
    for word in words:
        if word in _WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
        # Short options can be joined: -Im module.
        elif word == "-" or (not word.startswith("--") and {"c", "m"} & set(word)):
            return ""
    return ""


def _shipped(prefix: str, script: str) -> str:
    """The file of the environment that a push makes of a script in the project's folder; empty without one."""
    inner = os.path.normpath(script)
    if os.path.isabs(inner):
        inner = os.path.basename(inner)
    try:
        names = sorted(os.listdir(f"{prefix}/lib"))
    except OSError:
        return ""
    paths = (f"{prefix}/lib/{name}/site-packages/{inner}" for name in names if _LIBRARY.fullmatch(name))
    return next((path for path in paths if os.path.isfile(path)), "")


def _advice(script: str, shipped: str) -> str:
    module = os.path.normpath(os.path.basename(script) if os.path.isabs(script) else script).removesuffix(".py")
    if all(part.isidentifier() for part in module.split("/")):
        return f"python -m {module.replace('/', '.')}"
    return f"python {shipped}" if shipped else "it by its path in site-packages"


def _same(script: str, shipped: str) -> bool:
    try:
        if os.path.getsize(script) != os.path.getsize(shipped) or os.path.getsize(script) > _COMPARED:
            return False
        with open(script, "rb") as one, open(shipped, "rb") as two:
            return one.read() == two.read()
    except OSError:
        return True  # Python reports it
