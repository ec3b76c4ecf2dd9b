"""Settings files of other tools, read as they are: one that cannot be read is one sentence, one that is missing is empty."""

from __future__ import annotations

import configparser
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_text, read_toml
from lamella.layers.settings.homes import config_folder, home, shared_config_folders

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_MISSING = (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError)


class InvalidIndexSettings(BuilderError):
    """A settings file or variable of another tool that cannot be followed."""


def toml_table(path: str) -> dict[str, Any]:
    """Return the table in a TOML file; empty without the file. Raises `InvalidIndexSettings`."""
    try:
        return read_toml(path)
    except _MISSING:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidIndexSettings(f"{path}: cannot be read: {_problem(error)}; correct it") from None


def ini_sections(path: str) -> dict[str, dict[str, str]]:
    """Return the sections of an INI file; empty without the file. Raises `InvalidIndexSettings`."""
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(read_text(path))
    except _MISSING:
        return {}
    except (OSError, configparser.Error) as error:
        raise InvalidIndexSettings(f"{path}: cannot be read: {_problem(error)}; correct it") from None
    return {name: dict(parser[name]) for name in parser.sections()}


def table_in(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return the table at the path `names`; empty if it is missing or not a table."""
    found: Any = table
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def tables_of(value: object) -> list[dict[str, Any]]:
    """Return the tables of an array of tables; empty for anything else."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def texts_of(value: object) -> list[str]:
    """Return the texts of an array, or of one text that has them between white space."""
    if isinstance(value, str):
        return value.split()
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def is_on(value: object) -> bool:
    """Whether a setting or variable means yes."""
    return value is True or (isinstance(value, str) and value.strip().lower() in ("1", "true", "yes", "on", "y", "t"))


def expanded_variables(text: str, environ: Mapping[str, str]) -> str:
    """Replace `${NAME}` by the variable, as pip, PDM and conda do in URLs; an unset one stays as it is."""
    return re.sub(r"\$\{([A-Za-z_]\w*)\}", lambda found: environ.get(found[1], found[0]), text)


def user_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the folders of this user's settings, the least preferred first."""
    if sys.platform == "win32":
        yield from filter(None, [environ.get("APPDATA", "")])
        return
    if sys.platform == "darwin" and home():
        yield os.path.join(home(), "Library", "Application Support")
    yield from filter(None, [config_folder()])


def system_folders(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the folders of all users' settings, the least preferred first."""
    if sys.platform == "win32":
        yield from filter(None, [environ.get("PROGRAMDATA", "")])
        return
    if sys.platform == "darwin":
        yield "/Library/Application Support"
    yield "/etc"
    yield from reversed(shared_config_folders())


def upward(folder: str) -> Iterator[str]:
    """Yield `folder` and those above it."""
    current = os.path.abspath(folder)
    while True:
        yield current
        above = os.path.dirname(current)
        if above == current:
            return
        current = above


def _problem(error: Exception) -> str:
    # The text of a parser may quote a line, which may hold a password.
    if isinstance(error, OSError):
        return error.strerror or "unreadable"
    if isinstance(error, configparser.Error):
        return f"not an INI file ({type(error).__name__})"
    place = re.search(r"\(at [^)]*\)|line \d+(?:,? column \d+)?", str(error))
    return f"not TOML {place[0]}" if place else "not TOML"
