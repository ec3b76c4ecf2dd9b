"""Logins of keyring's command, as pip and uv ask it: `keyring get SERVICE USER`, and nothing that prompts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamella.builder.indexes.model import Login

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.indexes.model import PackageIndex

_SECONDS = 30


def keyring_login(index: PackageIndex, environ: Mapping[str, str]) -> Login | None:
    """Return keyring's login for `index`, by its URL and then by its host; None without the command or an entry."""
    command = shutil.which("keyring", path=environ.get("PATH"))
    if not command:
        return None
    host = urlsplit(index.url).netloc
    user = index.login.user if index.login else ""
    for service in (index.url, host):
        if user:
            password = _asked([command, "get", service, user], environ)
            found = Login(user, password) if password else None
        else:
            # keyring 25.2 and later; an older one refuses its flags.
            lines = _asked([command, "get", "--mode", "creds", service], environ).splitlines()
            found = Login(lines[0], lines[1]) if len(lines) == 2 else None
        if found:
            return found
    return None


def _asked(command: list[str], environ: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            command,
            env={**environ, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=_SECONDS,
            check=False,
            # A session of its own has no terminal to prompt on.
            start_new_session=sys.platform != "win32",
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.rstrip("\r\n") if done.returncode == 0 else ""
