"""Logins of netrc. Source: GNU inetutils, "The .netrc file"; `NETRC` as pip, uv and curl read it."""

from __future__ import annotations

import netrc
import os
import stat
import sys
from typing import TYPE_CHECKING

from lamella.builder.indexes.model import Login
from lamella.layers.published.findings import Finding
from lamella.layers.settings.homes import expanded, home

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST = 1 << 20


def netrc_logins(environ: Mapping[str, str]) -> tuple[dict[str, Login], tuple[Finding, ...]]:
    """Return the logins of netrc by host, and findings about the file. Its `default` entry is for every host, and is not read."""
    path = _path(environ)
    if not path:
        return {}, ()
    try:
        seen = os.stat(path)
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > _MOST:
            return {}, (_finding(path, "not a netrc file, and its logins are not used; correct it"),)
        # With a path, the module leaves permissions alone, as other tools do.
        hosts = netrc.netrc(path).hosts
    except FileNotFoundError:
        return {}, ()
    except (netrc.NetrcParseError, UnicodeDecodeError):
        return {}, (_finding(path, "not a netrc file, and its logins are not used; correct it"),)
    except OSError as error:
        return {}, (_finding(path, f"{error.strerror}, and its logins are not used"),)
    found = {
        host: Login(entry[0] or "", entry[2] or "") for host, entry in hosts.items() if host != "default" and entry[2]
    }
    exposed = os.name == "posix" and seen.st_mode & 0o077 and found
    return found, (_finding(path, f"other users can read its passwords; run chmod 600 {path}"),) if exposed else ()


def _path(environ: Mapping[str, str]) -> str:
    if named := environ.get("NETRC"):
        return expanded(named)
    names = ("_netrc", ".netrc") if sys.platform == "win32" else (".netrc", "_netrc")
    paths = [os.path.join(home(), name) for name in names] if home() else []
    return next((path for path in paths if os.path.lexists(path)), "")


def _finding(path: str, problem: str) -> Finding:
    return Finding("warning", "index", path, f"{path}: {problem}")
