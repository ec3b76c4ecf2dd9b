"""Where this machine's tools look for packages: one tool's settings decide, and logins are looked up as that tool does.

The tool is the one that installed most of the environment's packages, if its settings name an index; else another whose
settings do. pip and uv ignore each other's settings too.
"""

from __future__ import annotations

import collections
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from lamella.builder.files.small_file import read_text
from lamella.builder.indexes.keyring_logins import keyring_login
from lamella.builder.indexes.model import Indexes, Login
from lamella.builder.indexes.netrc_logins import netrc_logins
from lamella.builder.indexes.pip_settings import pip_settings
from lamella.builder.indexes.project_sources import pdm_settings, poetry_settings
from lamella.builder.indexes.uv_logins import login_below, uv_logins
from lamella.builder.indexes.uv_settings import named_strategy, uv_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.indexes.model import PackageIndex
    from lamella.builder.indexes.tool_settings import ToolSettings

_PROJECT_FILES = ("pyproject.toml", "uv.toml", "pixi.toml", "uv.lock", "pylock.toml", "pixi.lock", "requirements.txt")


def configured_indexes(
    folder: str,
    prefix: str = "",
    *,
    metadata: Iterable[str] = (),
    markers: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Indexes:
    """Return the indexes that the project in `folder` and this user are configured with, with their logins.

    `metadata` is the folders of the installed distributions, whose INSTALLER names their tool; PDM's patterns are matched
    with their names. `markers` is the environment of the target. Runs nothing but `keyring get`, if it is configured. Raises `InvalidIndexSettings`.
    """
    environ = os.environ if environ is None else environ
    metadata = tuple(metadata)
    names = {re.split(r"-(?=\d)", os.path.basename(each))[0] for each in metadata}
    settings = _settings(folder, prefix, _installers(metadata), names, environ=environ, markers=markers or {})
    hosts, findings = netrc_logins(environ)
    stored = uv_logins(environ)
    return Indexes(
        indexes=tuple(_with_login(each, hosts, stored, settings.keyring, environ) for each in settings.indexes),
        pins=settings.pins,
        find_links=tuple(_with_login(each, hosts, stored, settings.keyring, environ) for each in settings.find_links),
        strategy=named_strategy(environ) or settings.strategy,
        hosts=hosts,
        findings=findings,
    )


def project_folder(prefix: str) -> str:
    """Return the project that the environment at `prefix` belongs to: the folder that it lies in, else the current one."""
    prefix = os.path.abspath(prefix)
    # `.pixi/envs/NAME` and `.venv`.
    for levels in (1, 3):
        above = prefix
        for _ in range(levels):
            above = os.path.dirname(above)
        if levels == 3 and os.path.relpath(os.path.dirname(prefix), above) != os.path.join(".pixi", "envs"):
            break
        if any(os.path.isfile(os.path.join(above, name)) for name in _PROJECT_FILES):
            return above
    return os.getcwd()


def _settings(
    folder: str,
    prefix: str,
    installers: list[str],
    names: set[str],
    *,
    environ: Mapping[str, str],
    markers: Mapping[str, str],
) -> ToolSettings:
    readers = {
        "uv": lambda: uv_settings(folder, environ, markers),
        "poetry": lambda: poetry_settings(folder, environ),
        "pdm": lambda: pdm_settings(folder, environ, names),
        "pip": lambda: pip_settings(folder, prefix, environ),
    }
    for tool in dict.fromkeys((*(each for each in installers if each in readers), *readers)):
        found = readers[tool]()
        if found.configured:
            return found
    return found


def _installers(metadata: Iterable[str]) -> list[str]:
    """Names of the tools that installed distributions, the most frequent first."""
    counts: collections.Counter[str] = collections.Counter()
    for folder in metadata:
        try:
            words = read_text(os.path.join(folder, "INSTALLER"), 100).lower().split()
        except OSError:
            continue
        # Poetry writes its version behind its name.
        counts.update(words[:1])
    return [name for name, _ in counts.most_common()]


def _with_login(
    index: PackageIndex,
    hosts: Mapping[str, Login],
    stored: Mapping[str, Login],
    keyring: str,
    environ: Mapping[str, str],
) -> PackageIndex:
    from urllib.parse import urlsplit

    parts = urlsplit(index.url)
    if index.authenticate == "never":
        return replace(index, login=None)
    if (index.login and index.login.password) or parts.scheme not in ("http", "https"):
        return index
    of_netrc = hosts.get(parts.hostname or "")
    if of_netrc and index.login and index.login.user != of_netrc.user:
        of_netrc = None
    found = of_netrc or login_below(index, stored)
    # A provider that was not asked for is asked if the URL has a user without a password, as by pip.
    asked = keyring in ("subprocess", "import") or (keyring == "auto" and index.login)
    if found is None and asked:
        found = keyring_login(index, environ)
    return replace(index, login=found or index.login)
