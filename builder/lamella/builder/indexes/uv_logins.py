"""Logins that `uv auth login` keeps in a file. Source: uv's "uv auth" and `UV_CREDENTIALS_DIR`.

Those that uv keeps in the system's keyring (a preview) are known to uv alone.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from lamella.builder.indexes.model import Login
from lamella.builder.indexes.settings_files import tables_of, toml_table
from lamella.layers.settings.homes import data_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.indexes.model import PackageIndex


def uv_logins(environ: Mapping[str, str]) -> dict[str, Login]:
    """Return uv's stored logins by the URL of their service. Raises `InvalidIndexSettings`."""
    folder = _folder(environ)
    found = {}
    for each in tables_of(toml_table(os.path.join(folder, "credentials.toml")).get("credential")) if folder else []:
        service, password = each.get("service"), each.get("password") or each.get("token")
        if isinstance(service, str) and isinstance(password, str):
            user = each.get("username")
            found[service.rstrip("/")] = Login(user if isinstance(user, str) else "", password)
    return found


def login_below(index: PackageIndex, stored: Mapping[str, Login]) -> Login | None:
    """Return the stored login for `index`: of the longest service that its URL is at or below."""
    fits = [service for service in stored if index.url == service or index.url.startswith(f"{service}/")]
    user = index.login.user if index.login else ""
    ordered = sorted(fits, key=len, reverse=True)
    return next((stored[each] for each in ordered if not user or stored[each].user == user), None)


def _folder(environ: Mapping[str, str]) -> str:
    if named := environ.get("UV_CREDENTIALS_DIR"):
        return named
    if sys.platform == "win32":
        data = environ.get("APPDATA", "")
        return os.path.join(data, "uv", "data", "credentials") if data else ""
    return os.path.join(data_folder(), "uv", "credentials") if data_folder() else ""
