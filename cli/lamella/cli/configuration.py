"""Read the files that settings come from: the project's, the user's and the machine's.

A project shapes the build: its file is part of a repository, which others wrote. It sets neither the source of code nor
trust. See docs/reference/trust.md.
"""

from __future__ import annotations

import importlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from lamella.cli.errors import UsageError
from lamella.layers.settings import homes
from lamella.layers.text import size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

MACHINE = "/etc/lamella/config.toml"
"""The machine's file, as messages name it; `machine_policy` reads it."""
PROJECT = frozenset(
    {"base", "compression", "fail-on", "ignore", "image-prefix", "include", "max-layers"}
    | {"platform", "match", "exact", "glibc", "cuda", "python-from"}
)
"""Keys that a project may set."""
_PATHS = frozenset({"ca-file", "cache", "hosts-dir", "include", "local", "require-signature", "store"})
_ADMINISTRATORS = frozenset({"allowed-registries", "shared-group"})
_MAX_BYTES = 4 << 20


class File(NamedTuple):
    """One file's settings; without the file, none."""

    path: str
    values: Mapping[str, Any]


def files(folder: str, known: Collection[str]) -> tuple[File, ...]:
    """Return the files whose settings apply in `folder`, in order of precedence. `known` are the names of all settings.

    Raises `UsageError`, and `PolicyError` for the machine's file.
    """
    from lamella.layers import machine_policy

    policy = machine_policy()
    machine = File(policy.path, _with_paths(policy.path, policy.settings))
    return _project(folder, known), _user(known), machine


def _user(known: Collection[str]) -> File:
    path = homes.settings_file()
    content = _content(path, optional=False) if path else None
    if content is None:
        return File(path, {})
    table = _parsed(path, content)
    for key in table:
        if key in _ADMINISTRATORS:
            raise UsageError(f"{path}: {key}: an administrator's setting; set it in {MACHINE}")
    _check_known(path, table, known)
    return File(path, _with_paths(path, table))


def _project(folder: str, known: Collection[str]) -> File:
    # The nearest pyproject.toml counts, as for other tools, even if it has no [tool.lamella].
    here = os.path.abspath(folder)
    while True:
        path = os.path.join(here, "pyproject.toml")
        content = _content(path, optional=True)
        if content is not None:
            return File(path, _projects_own(path, _table(path, content), known))
        if os.path.dirname(here) == here:
            return File("", {})
        here = os.path.dirname(here)


def _table(path: str, content: bytes) -> dict[str, Any]:
    if b"lamella" not in content:
        return {}
    tool = _parsed(path, content).get("tool")
    table = tool.get("lamella", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{path}: tool.lamella is not a table; write [tool.lamella]")
    return table


def _projects_own(path: str, table: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    for key in table:
        if (key in known and key not in PROJECT) or key in _ADMINISTRATORS:
            own = f"{homes.settings_file()}, or in {MACHINE} for all users" if homes.settings_file() else MACHINE
            raise UsageError(f"{path}: {key}: not a project's setting; set it in {own}")
    _check_known(path, table, PROJECT, " in [tool.lamella]")
    if isinstance(included := table.get("include"), list):
        table["include"] = [_inside(path, each) if isinstance(each, str) else each for each in included]
    return table


def _inside(path: str, included: str) -> str:
    """Return the file of the project that `included` names; a repository must not ship files from elsewhere on this disk."""
    folder = os.path.realpath(os.path.dirname(path))
    found = os.path.join(folder, included)
    if not os.path.realpath(found).startswith(f"{folder.rstrip('/')}/"):
        raise UsageError(f"{path}: include {included}: not in the project's folder; use the flag --include for it")
    return os.path.normpath(found)


def _check_known(path: str, table: Mapping[str, Any], known: Collection[str], where: str = "") -> None:
    if unknown := sorted(set(table) - set(known)):
        raise UsageError(f"{path}: unknown key {unknown[0]!r}{where}; use {', '.join(sorted(known))}")


def _with_paths(path: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table whose paths are absolute: relative ones are relative to the file."""
    folder = os.path.dirname(path)

    def absolute(value: object) -> object:
        # An empty one turns a setting off.
        return (
            os.path.normpath(os.path.join(folder, homes.expanded(value))) if isinstance(value, str) and value else value
        )

    return {
        key: value
        if key not in _PATHS
        else [absolute(each) for each in value]
        if isinstance(value, list)
        else absolute(value)
        for key, value in table.items()
    }


def _parsed(path: str, content: bytes) -> dict[str, Any]:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        parsed: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: invalid TOML: {error}") from None
    return parsed


def _content(path: str, *, optional: bool) -> bytes | None:
    """Return the content of a file; None without one. One that can't be read is empty if it is `optional`, else an error."""
    advice = "correct or remove it"
    try:
        # A FIFO of that name must not stop the command.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(file, "rb") as stream:
            if stat.S_ISREG(os.fstat(file).st_mode):
                content = stream.read(_MAX_BYTES + 1)
                problem = f"longer than {size(_MAX_BYTES)}" if len(content) > _MAX_BYTES else ""
            else:
                content, problem = b"", "not a file"
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        content, problem = b"", str(error.strerror)
        if isinstance(error, PermissionError):
            advice = homes.NOT_READABLE
    if problem and not optional:
        raise UsageError(f"{path}: {problem}; {advice}")
    return b"" if problem else content
