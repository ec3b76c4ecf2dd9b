"""Channels as conda, mamba and pixi are configured, with the credentials of their URLs.

Sources: conda's "Using the .condarc conda configuration file" and its search path; pixi's manifest. rattler reads pixi's own
settings, its store of credentials and netrc by itself.
"""

from __future__ import annotations

import os
import re
import sys
from typing import TYPE_CHECKING, Any

from lamella.builder.files.small_file import read_text
from lamella.builder.indexes.settings_files import InvalidIndexSettings, table_in, texts_of, toml_table
from lamella.layers.settings.homes import config_folder, expanded, home

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_ALIAS = "https://conda.anaconda.org"
_DEFAULTS = ("https://repo.anaconda.com/pkgs/main", "https://repo.anaconda.com/pkgs/r")
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")


def conda_channels(folder: str, prefix: str = "", environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Return the URLs of the channels of the project in `folder` and of this user, the most preferred first.

    They may hold credentials: show none of them. Raises `InvalidIndexSettings`.
    """
    environ = os.environ if environ is None else environ
    settings = _merged([_yaml(path) for path in _files(prefix, environ)], environ)
    named = [*_of_pixi(folder), *texts_of(environ.get("CONDA_CHANNELS", "").replace(",", " "))]
    urls = [url for name in (*named, *settings["channels"], "defaults") for url in _urls(name, settings)]
    return tuple(dict.fromkeys(_with_variables(url, environ).rstrip("/") for url in urls))


def _merged(tables: list[dict[str, Any]], environ: Mapping[str, str]) -> dict[str, Any]:
    """One table of `tables`, the most preferred first: lists are joined, others replaced."""
    found: dict[str, Any] = {"channels": [], "default_channels": [], "custom_channels": {}, "multiple": {}, "alias": ""}
    for table in tables:
        found["channels"] += texts_of(table.get("channels"))
        found["default_channels"] += texts_of(table.get("default_channels"))
        found["alias"] = found["alias"] or table.get("channel_alias")
        found["custom_channels"] = {**table_in(table, "custom_channels"), **found["custom_channels"]}
        for key in ("custom_multichannels", "mirrored_channels"):
            found["multiple"] = {**table_in(table, key), **found["multiple"]}
    alias = environ.get("CONDA_CHANNEL_ALIAS") or found["alias"]
    found["alias"] = alias if isinstance(alias, str) and alias else _ALIAS
    found["default_channels"] = found["default_channels"] or list(_DEFAULTS)
    return found


def _urls(name: str, settings: Mapping[str, Any]) -> Iterator[str]:
    if "://" in name:
        yield name
        return
    if name.startswith((".", "/", "~")):
        from pathlib import Path

        yield Path(os.path.abspath(expanded(name))).as_uri()
        return
    several = settings["multiple"].get(name) or (settings["default_channels"] if name == "defaults" else None)
    if several:
        for each in texts_of(several):
            yield from _urls(each, {**settings, "multiple": {}})
        return
    parts = name.split("/")
    for length in range(len(parts), 0, -1):
        base = settings["custom_channels"].get("/".join(parts[:length]))
        if isinstance(base, str):
            yield f"{base.rstrip('/')}/{name}"
            return
    yield f"{settings['alias'].rstrip('/')}/{name}"


def _of_pixi(folder: str) -> Iterator[str]:
    manifest = toml_table(os.path.join(folder, "pixi.toml"))
    manifest = manifest or table_in(toml_table(os.path.join(folder, "pyproject.toml")), "tool", "pixi")
    features = [each for each in table_in(manifest, "feature").values() if isinstance(each, dict)]
    listed = []
    for table in (table_in(manifest, "workspace"), table_in(manifest, "project"), *features):
        channels = table.get("channels")
        for each in channels if isinstance(channels, list) else []:
            name = each.get("channel") if isinstance(each, dict) else each
            priority = each.get("priority", 0) if isinstance(each, dict) else 0
            if isinstance(name, str) and isinstance(priority, int):
                listed.append((-priority, name))
    yield from (name for _, name in sorted(listed, key=lambda each: each[0]))


def _files(prefix: str, environ: Mapping[str, str]) -> Iterator[str]:
    """Settings files, the most preferred first. Source: conda's `SEARCH_PATH`."""
    if named := environ.get("CONDARC"):
        yield expanded(named)
    folders = [prefix, environ.get("CONDA_PREFIX", "")]
    folders += [os.path.join(home(), ".conda"), os.path.join(config_folder(), "conda")] if home() else []
    folders += [environ.get("CONDA_ROOT", ""), _root(prefix)]
    shared = ["C:/ProgramData/conda"] if sys.platform == "win32" else ["/var/lib/conda", "/etc/conda"]
    for folder in filter(None, dict.fromkeys((*folders[:2], home(), *folders[2:], *shared))):
        for name in reversed(_in(os.path.join(folder, "condarc.d")) if folder != home() else []):
            yield os.path.join(folder, "condarc.d", name)
        yield from (os.path.join(folder, name) for name in (".condarc", *(["condarc"] if folder != home() else [])))


def _root(prefix: str) -> str:
    """The installation that an environment in its `envs` belongs to."""
    above = os.path.dirname(os.path.abspath(prefix)) if prefix else ""
    return os.path.dirname(above) if os.path.basename(above) == "envs" else ""


def _in(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith((".yml", ".yaml")))
    except OSError:
        return []


def _yaml(path: str) -> dict[str, Any]:
    try:
        text = read_text(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError, IsADirectoryError):
        return {}
    except OSError as error:
        raise InvalidIndexSettings(f"{path}: cannot be read: {error.strerror}; correct it") from None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        found = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError, RecursionError):
        # The parser quotes a line, which may hold a password.
        raise InvalidIndexSettings(f"{path}: cannot be read: not YAML; correct it") from None
    return found if isinstance(found, dict) else {}


def _with_variables(text: str, environ: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda found: environ.get(found[1] or found[2], found[0]), text)
