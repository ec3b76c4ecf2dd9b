"""Indexes as uv is configured. Source: uv's "Package indexes", "Configuration files" and "Environment variables".

uv's command line is not known here: a project that names its index there writes it in pyproject.toml or UV_INDEX as well.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lamella.builder.indexes.model import PYPI, Login, PackageIndex, link_page, parsed, without_repeats
from lamella.builder.indexes.settings_files import (
    InvalidIndexSettings,
    is_on,
    system_folders,
    table_in,
    tables_of,
    texts_of,
    toml_table,
    upward,
    user_folders,
)
from lamella.builder.indexes.tool_settings import ToolSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamella.builder.indexes.model import Authenticate, Strategy

_STRATEGIES: tuple[Strategy, ...] = ("first-index", "unsafe-first-match", "unsafe-best-match")
_NAME = re.compile(r"[A-Za-z0-9._-]+")
"""A name before the equals sign of UV_INDEX; anything else there is part of a URL."""


def uv_settings(folder: str, environ: Mapping[str, str], markers: Mapping[str, str]) -> ToolSettings:
    """Return what uv would use in `folder`. Raises `InvalidIndexSettings`.

    `markers` is the environment of the target, for sources that differ between platforms.
    """
    tables = list(_tables(folder, environ))
    named = [*_of_environment(environ), *(each for table, base in tables for each in _of_table(table, base))]
    listed = _without_repeats(named)
    defaults = [index for index, is_default in listed if is_default]
    others = [index for index, is_default in listed if not is_default]
    no_index = is_on(environ.get("UV_NO_INDEX")) or any(is_on(_value(table, "no-index")) for table, _ in tables[:1])
    indexes = () if no_index else (*others, *(defaults[:1] or [PackageIndex(PYPI)]))
    project, sources = _sources(folder)
    pins = _pins(sources, {index.name: index for index, _ in listed if index.name}, project, markers)
    pinned = [index for index, _ in listed if index.url in pins.values() and index not in indexes]
    named_links = filter(None, re.split(r"[,\s]+", environ.get("UV_FIND_LINKS", "")))
    links = [*(link_page(each, "UV_FIND_LINKS") for each in named_links), *_links(tables)]
    return ToolSettings(
        indexes=tuple(
            _with_variables(each, environ) for each in (*(replace(each, explicit=True) for each in pinned), *indexes)
        ),
        pins=pins,
        find_links=without_repeats(_with_variables(each, environ) for each in links),
        strategy=_strategy(environ, tables),
        keyring=environ.get("UV_KEYRING_PROVIDER") or _first_text(tables, "keyring-provider") or "disabled",
        configured=bool(listed or links or no_index),
    )


def _tables(folder: str, environ: Mapping[str, str]) -> Iterator[tuple[dict[str, Any], str]]:
    """Tables of settings, the most preferred first, each with the folder that its paths are relative to."""
    if named := environ.get("UV_CONFIG_FILE"):
        yield toml_table(named), os.path.dirname(os.path.abspath(named))
        return
    if is_on(environ.get("UV_NO_CONFIG")):
        return
    for each in upward(folder):
        table = toml_table(os.path.join(each, "uv.toml"))
        if os.path.isfile(os.path.join(each, "uv.toml")):
            yield table, each
            break
        if table := table_in(toml_table(os.path.join(each, "pyproject.toml")), "tool", "uv"):
            yield table, each
            break
    for each in [*reversed([*user_folders(environ)]), *reversed([*system_folders(environ)])]:
        if table := toml_table(os.path.join(each, "uv", "uv.toml")):
            yield table, each


def _sources(folder: str) -> tuple[str, dict[str, Any]]:
    """The pyproject.toml with the nearest `tool.uv`, and its sources: uv.toml has none."""
    for each in upward(folder):
        path = os.path.join(each, "pyproject.toml")
        if table := table_in(toml_table(path), "tool", "uv"):
            return path, table_in(table, "sources")
    return "", {}


def _of_environment(environ: Mapping[str, str]) -> Iterator[tuple[PackageIndex, bool]]:
    for text in environ.get("UV_INDEX", "").split():
        yield _named(text, "UV_INDEX"), False
    for name, is_default in (("UV_EXTRA_INDEX_URL", False), ("UV_DEFAULT_INDEX", True), ("UV_INDEX_URL", True)):
        for text in environ.get(name, "").split():
            yield _named(text, name), is_default


def _named(text: str, setting: str) -> PackageIndex:
    name, equals, url = text.partition("=")
    return parsed(url, setting, name=name) if equals and _NAME.fullmatch(name) else parsed(text, setting)


def _of_table(table: Mapping[str, Any], base: str) -> Iterator[tuple[PackageIndex, bool]]:
    for each in tables_of(table.get("index")):
        if isinstance(each.get("url"), str) and each.get("format") != "flat":
            name = str(each.get("name", ""))
            setting = f"index {name} of uv in {base}"
            found = parsed(_url(each["url"], base), setting, name=name, explicit=is_on(each.get("explicit")))
            yield replace(found, authenticate=_authenticate(each.get("authenticate"))), is_on(each.get("default"))
    for name, is_default in (("extra-index-url", False), ("index-url", True)):
        for url in texts_of(_value(table, name)):
            yield parsed(_url(url, base), f"{name} of uv in {base}"), is_default


def _authenticate(value: object) -> Authenticate:
    return "always" if value == "always" else "never" if value == "never" else "auto"


def _value(table: Mapping[str, Any], name: str) -> object:
    return table_in(table, "pip").get(name, table.get(name))


def _url(text: str, base: str) -> str:
    if "://" in text:
        return text
    from pathlib import Path

    return Path(os.path.normpath(os.path.join(base, text))).as_uri()


def _links(tables: Sequence[tuple[dict[str, Any], str]]) -> Iterator[PackageIndex]:
    for table, base in tables:
        for link in texts_of(_value(table, "find-links")):
            yield link_page(_place(link, base), f"find-links of uv in {base}")
        for each in tables_of(table.get("index")):
            if each.get("format") == "flat" and isinstance(each.get("url"), str):
                name = str(each.get("name", ""))
                page = link_page(_place(each["url"], base), f"index {name} of uv in {base}", name)
                yield replace(page, authenticate=_authenticate(each.get("authenticate")))


def _place(link: str, base: str) -> str:
    return link if "://" in link else os.path.normpath(os.path.join(base, link))


def _first_text(tables: Sequence[tuple[dict[str, Any], str]], name: str) -> str:
    return next((value for table, _ in tables if isinstance(value := _value(table, name), str)), "")


def _strategy(environ: Mapping[str, str], tables: Sequence[tuple[dict[str, Any], str]]) -> Strategy:
    return named_strategy(environ) or _strategy_of(_first_text(tables, "index-strategy") or "first-index")


def named_strategy(environ: Mapping[str, str]) -> Strategy | None:
    """Return the strategy of `UV_INDEX_STRATEGY`, which holds for the settings of any tool. Raises `InvalidIndexSettings`."""
    found = environ.get("UV_INDEX_STRATEGY")
    return _strategy_of(found) if found else None


def _strategy_of(found: str) -> Strategy:
    for strategy in _STRATEGIES:
        if found == strategy:
            return strategy
    raise InvalidIndexSettings(f"index-strategy {found}: not a strategy of uv; use {', '.join(_STRATEGIES)}")


def _without_repeats(listed: Sequence[tuple[PackageIndex, bool]]) -> list[tuple[PackageIndex, bool]]:
    """Each index once, at its first place: a name that is given again stands for the first index of it."""
    found: dict[str, tuple[PackageIndex, bool]] = {}
    names: set[str] = set()
    for index, is_default in listed:
        if index.url in found or (index.name and index.name in names):
            continue
        found[index.url] = index, is_default
        names.add(index.name)
    return list(found.values())


def _pins(
    sources: Mapping[str, Any], named: Mapping[str, PackageIndex], path: str, markers: Mapping[str, str]
) -> dict[str, str]:
    pins: dict[str, str] = {}
    for package, value in sources.items():
        for source in tables_of(value if isinstance(value, list) else [value]):
            name = source.get("index")
            if not isinstance(name, str) or not _holds(source.get("marker"), markers):
                continue
            if name not in named:
                raise InvalidIndexSettings(
                    f"{path}: {package} is pinned to the index {name}, which is not defined; define it"
                )
            pins.setdefault(re.sub(r"[-_.]+", "-", package).lower(), named[name].url)
    return pins


def _holds(marker: object, markers: Mapping[str, str]) -> bool:
    from packaging.markers import InvalidMarker, Marker

    if not isinstance(marker, str):
        return True
    try:
        return Marker(marker).evaluate({**markers})
    except InvalidMarker:
        return True


def _with_variables(index: PackageIndex, environ: Mapping[str, str]) -> PackageIndex:
    """`index` with the login of `UV_INDEX_<NAME>_USERNAME` and `_PASSWORD`, which go before its URL's."""
    stem = f"UV_INDEX_{re.sub(r'[^A-Z0-9]', '_', index.name.upper())}"
    user, password = environ.get(f"{stem}_USERNAME"), environ.get(f"{stem}_PASSWORD")
    if not index.name or (user is None and password is None) or urlsplit(index.url).scheme not in ("http", "https"):
        return index
    known = index.login or Login("", "")
    return replace(
        index, login=Login(known.user if user is None else user, known.password if password is None else password)
    )
