"""The folders that a variable or a configuration file names: one store and one cache for the command and for Python.

In this order: `LAMELLA_STORE` or `LAMELLA_CACHE`, the user's `lamella/config.toml`, the machine's. A project names none: a
store holds code that runs, and a cache holds code that ships.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, Literal

from lamella.layers.errors import LayersError
from lamella.layers.hardening.regular_file import open_regular
from lamella.layers.settings import homes
from lamella.layers.settings.policy import machine_policy
from lamella.layers.text import escaped, size

_MAX_BYTES = 4 << 20

Setting = Literal["store", "cache"]


def named_folder(setting: Setting) -> str | None:
    """Return the absolute path of the folder that is named for `setting`; None for the default.

    An empty name asks for the default. Raises `LayersError` if a file can't be used.
    """
    named = os.environ.get(f"LAMELLA_{setting.upper()}")
    if named is not None:
        return os.path.abspath(homes.expanded(named)) if named else None
    path = homes.settings_file()
    content = _content(path) if path else b""
    # A script that sets nothing there does not import a parser.
    table = _table(path, content) if setting.encode() in content else {}
    if setting in table:
        return _folder(path, setting, table[setting])
    policy = machine_policy()
    return _folder(policy.path, setting, policy.settings[setting]) if setting in policy.settings else None


def _folder(path: str, setting: str, value: object) -> str | None:
    if not isinstance(value, str):
        raise _invalid(path, f"{setting} is not a string")
    # Relative to the file.
    return os.path.normpath(os.path.join(os.path.dirname(path), homes.expanded(value))) if value else None


def _table(path: str, content: bytes) -> dict[str, Any]:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        table: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _invalid(path, f"invalid TOML: {error}") from None
    return table


def _content(path: str) -> bytes:
    try:
        with open_regular(path) as stream:
            content = stream.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return b""
    except PermissionError as error:
        raise LayersError(f"{path}: {error.strerror}; {homes.NOT_READABLE}") from error
    except OSError as error:
        raise _invalid(path, error.strerror or str(error)) from None
    if len(content) > _MAX_BYTES:
        raise _invalid(path, f"longer than {size(_MAX_BYTES)}")
    return content


def _invalid(path: str, problem: str) -> LayersError:
    return LayersError(f"{path}: {escaped(problem, 300)}; correct or remove it")
