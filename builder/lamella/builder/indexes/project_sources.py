"""Sources of packages in the pyproject.toml of Poetry and PDM. Source: their "Repositories" and "Configure the project"."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamella.builder.indexes.model import PYPI, Login, PackageIndex, parsed
from lamella.builder.indexes.settings_files import expanded_variables, table_in, tables_of, toml_table, user_folders
from lamella.builder.indexes.tool_settings import ToolSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PRIORITIES = {"default": 0, "primary": 0, "secondary": 2, "supplemental": 2, "explicit": 3}


def poetry_settings(folder: str, environ: Mapping[str, str]) -> ToolSettings:
    """Return the sources of Poetry's project in `folder`. Raises `InvalidIndexSettings`."""
    poetry = table_in(toml_table(os.path.join(folder, "pyproject.toml")), "tool", "poetry")
    listed = []
    for source in tables_of(poetry.get("source")):
        name, url = str(source.get("name", "")), source.get("url")
        place = _PRIORITIES.get(str(source.get("priority", "primary")).lower(), 0)
        if isinstance(url, str) or name.lower() == "pypi":
            setting = f"source {name} of Poetry"
            index = parsed(url if isinstance(url, str) else PYPI, setting, name=name, explicit=place == 3)
            listed.append((place, _with_poetry_login(index, environ)))
    if listed and not any(place == 0 for place, _ in listed):
        listed.append((1, PackageIndex(PYPI, "pypi")))
    indexes = [index for _, index in sorted(listed, key=lambda each: each[0])]
    by_name = {index.name: index.url for index in indexes}
    pins = {name: by_name[source] for name, source in _poetry_pins(poetry) if source in by_name}
    return ToolSettings(tuple(indexes), pins, keyring="auto", configured=bool(indexes))


def _poetry_pins(poetry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    groups = table_in(poetry, "group").values()
    tables = [table_in(poetry, "dependencies"), table_in(poetry, "dev-dependencies")]
    for table in (*tables, *(table_in(each, "dependencies") for each in groups if isinstance(each, dict))):
        for package, value in table.items():
            for each in tables_of(value if isinstance(value, list) else [value]):
                if isinstance(each.get("source"), str):
                    yield _normalised(package), each["source"]


def _with_poetry_login(index: PackageIndex, environ: Mapping[str, str]) -> PackageIndex:
    stem = f"POETRY_HTTP_BASIC_{re.sub(r'[.-]', '_', index.name).upper()}"
    user, password = environ.get(f"{stem}_USERNAME"), environ.get(f"{stem}_PASSWORD")
    if user is None:
        for folder in user_folders(environ):
            table = table_in(toml_table(os.path.join(folder, "pypoetry", "auth.toml")), "http-basic", index.name)
            user, password = table.get("username", user), table.get("password", password)
    if not isinstance(user, str):
        return index
    return replace(index, login=Login(user, password if isinstance(password, str) else ""))


def pdm_settings(folder: str, environ: Mapping[str, str]) -> ToolSettings:
    """Return the sources of PDM's project in `folder`. Raises `InvalidIndexSettings`."""
    pdm = table_in(toml_table(os.path.join(folder, "pyproject.toml")), "tool", "pdm")
    indexes, pins, links = [], {}, []
    for source in tables_of(pdm.get("source")):
        if not isinstance(source.get("url"), str):
            continue
        url = expanded_variables(source["url"], environ)
        if source.get("type") == "find_links":
            links.append(url)
            continue
        name = str(source.get("name", ""))
        index = parsed(url, f"source {name} of PDM", name=name)
        user, password = source.get("username"), source.get("password")
        if isinstance(user, str):
            given = expanded_variables(password, environ) if isinstance(password, str) else ""
            index = replace(index, login=Login(expanded_variables(user, environ), given))
        for package in source.get("include_packages") or ():
            # A pattern names packages that are not known here.
            if isinstance(package, str) and not re.search(r"[*?\[]", package):
                pins[_normalised(package)] = index.url
        indexes.append(index)
    configured = bool(indexes or links)
    if not any(index.name == "pypi" for index in indexes):
        indexes.append(PackageIndex(PYPI, "pypi"))
    return ToolSettings(tuple(indexes), pins, tuple(links), keyring="auto", configured=configured)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
