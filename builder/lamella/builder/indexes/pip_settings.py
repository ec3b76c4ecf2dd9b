"""Indexes as pip is configured. Source: pip's "Configuration" and "pip install".

pip takes the best version of any of its indexes. Here an extra index goes before the main one and the first index that has a
package is the only one: a better version of a private package on a public index is never taken.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from lamella.builder.indexes.model import PYPI, link_page, parsed, without_repeats
from lamella.builder.indexes.settings_files import (
    expanded_variables,
    ini_sections,
    is_on,
    system_folders,
    texts_of,
    user_folders,
)
from lamella.builder.indexes.tool_settings import ToolSettings
from lamella.layers.settings.homes import expanded, home

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PLACES = ("index-url", "extra-index-url", "find-links")
_KEYS = (*_PLACES, "no-index", "keyring-provider")


def pip_settings(folder: str, prefix: str, environ: Mapping[str, str]) -> ToolSettings:
    """Return what pip of the environment at `prefix` would use in `folder`. Raises `InvalidIndexSettings`."""
    found: dict[str, str] = {}
    for path in _files(prefix, environ):
        sections = ini_sections(path)
        for section in ("global", "install"):
            found.update(_known(sections.get(section, {}).items()))
    found.update(_known((name[4:], value) for name, value in environ.items() if name.startswith("PIP_")))
    for text in _requirements_options(folder):
        name, value = text
        if name == "index-url":
            found["index-url"] = value
        else:
            found[name] = f"{found.get(name, '')} {value}".strip()
    return _of(found, folder, environ)


def _known(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    named = ((name.lower().replace("_", "-").removeprefix("--"), value) for name, value in items)
    return {name: value for name, value in named if name in _KEYS and value}


def _of(found: Mapping[str, str], folder: str, environ: Mapping[str, str]) -> ToolSettings:
    main = found.get("index-url", "").strip()
    urls = [*(("extra-index-url", url) for url in texts_of(found.get("extra-index-url"))), ("index-url", main or PYPI)]
    if is_on(found.get("no-index")):
        urls = []
    indexes = [parsed(expanded_variables(url, environ), f"{setting} of pip") for setting, url in urls]
    return ToolSettings(
        indexes=without_repeats(indexes),
        find_links=without_repeats(
            link_page(_place(expanded_variables(each, environ), folder), "find-links of pip")
            for each in texts_of(found.get("find-links"))
        ),
        keyring=found.get("keyring-provider", "auto"),
        configured=is_on(found.get("no-index")) or any(found.get(key) for key in _PLACES),
    )


def _place(link: str, folder: str) -> str:
    return link if "://" in link else os.path.abspath(os.path.join(folder, expanded(link)))


def _files(prefix: str, environ: Mapping[str, str]) -> Iterator[str]:
    """The least preferred first."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    name = "pip.ini" if sys.platform == "win32" else "pip.conf"
    for folder in system_folders(environ):
        yield os.path.join(folder, name) if folder == "/etc" else os.path.join(folder, "pip", name)
    if not (named and os.path.exists(named)):
        if home():
            yield os.path.join(home(), "pip" if sys.platform == "win32" else ".pip", name)
        for folder in user_folders(environ):
            yield os.path.join(folder, "pip", name)
    if prefix:
        yield os.path.join(prefix, name)
    if named:
        yield named


def _requirements_options(folder: str) -> Iterator[tuple[str, str]]:
    """Options in the project's requirements.txt that say where to look."""
    from lamella.builder.indexes.requirements import options_in

    for name, value in options_in(os.path.join(folder, "requirements.txt")):
        if name in _PLACES:
            yield name, value
        elif name == "no-index":
            yield name, "1"
