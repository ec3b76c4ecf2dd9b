"""Sources of packages in the pyproject.toml of Poetry and PDM. Source: their "Repositories" and "Configure the project"."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from lamella.builder.indexes.model import PYPI, Login, PackageIndex, link_page, parsed
from lamella.builder.indexes.settings_files import expanded_variables, table_in, tables_of, toml_table, user_folders
from lamella.builder.indexes.tool_settings import ToolSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

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


def pdm_settings(folder: str, environ: Mapping[str, str], installed: Collection[str] = ()) -> ToolSettings:
    """Return the sources of PDM's project in `folder`. Raises `InvalidIndexSettings`.

    `installed` is the names of the installed distributions, which patterns of packages are matched with.
    """
    pdm = table_in(toml_table(os.path.join(folder, "pyproject.toml")), "tool", "pdm")
    indexes, links = [], []
    patterns: dict[str, tuple[list[str], list[str]]] = {}
    for source in tables_of(pdm.get("source")):
        if not isinstance(source.get("url"), str):
            continue
        url = expanded_variables(source["url"], environ)
        name, is_page = str(source.get("name", "")), source.get("type") == "find_links"
        setting = f"source {name} of PDM"
        index = link_page(url, setting, name) if is_page else parsed(url, setting, name=name)
        user, password = source.get("username"), source.get("password")
        if isinstance(user, str):
            given = expanded_variables(password, environ) if isinstance(password, str) else ""
            index = replace(index, login=Login(expanded_variables(user, environ), given))
        if is_page:
            links.append(index)
            continue
        patterns[index.url] = _patterns(source, "include_packages"), _patterns(source, "exclude_packages")
        indexes.append(index)
    configured = bool(indexes or links)
    if not any(index.name == "pypi" for index in indexes):
        indexes.append(PackageIndex(PYPI, "pypi"))
    # A package that comes in on the target alone may match a pattern as well.
    indexes.sort(key=lambda index: not patterns.get(index.url, ([], []))[0])
    pins = dict(_pdm_pins([index.url for index in indexes], patterns, installed))
    return ToolSettings(tuple(indexes), pins, tuple(links), keyring="auto", configured=configured)


def _patterns(source: Mapping[str, Any], key: str) -> list[str]:
    return [_normalised(each) for each in source.get(key) or () if isinstance(each, str)]


def _pdm_pins(
    urls: list[str], patterns: Mapping[str, tuple[list[str], list[str]]], installed: Collection[str]
) -> Iterator[tuple[str, str]]:
    literal = {each for include, _ in patterns.values() for each in include if not re.search(r"[*?\[]", each)}
    for name in sorted(literal.union(map(_normalised, installed))):
        including = [url for url, (include, _) in patterns.items() if any(fnmatchcase(name, each) for each in include)]
        excluding = {url for url, (_, exclude) in patterns.items() if any(fnmatchcase(name, each) for each in exclude)}
        left = [url for url in including or urls if url not in excluding]
        # Several indexes that are left are all asked: one alone can be the index of a package.
        if left and (including or len(left) == 1 < len(urls)):
            yield name, left[0]


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
