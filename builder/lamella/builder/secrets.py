"""Files that hold credentials, and never ship. Told by name, and where a name says little, by a look inside."""

from __future__ import annotations

import os
import re

VCS = frozenset({".git", ".hg", ".svn", ".bzr", "CVS", "_darcs", ".jj", ".pijul"})
"""A version control system's own: histories and remotes' passwords."""

_NAMES = frozenset(
    {
        ".netrc",
        "_netrc",
        ".pypirc",
        ".git-credentials",
        ".env",
        ".envrc",
        ".pgpass",
        ".my.cnf",
        ".htpasswd",
        ".dockercfg",
        ".npmrc",
        ".boto",
        ".s3cfg",
        "id_rsa",
        "id_dsa",
        "id_ecdsa",
        "id_ed25519",
    }
)
_ENV = re.compile(r"\.env\.(?!example$|sample$|template$|dist$)[\w.-]+")
_FOLDERS = (".aws/credentials", ".docker/config.json", ".kube/config", ".config/gcloud", ".ssh", ".gnupg", ".azure")
_CONFIGURATION = frozenset({"pip.conf", "pip.ini", ".condarc", "condarc", "uv.toml", ".mambarc", "mambarc"})
_STATE = "conda-meta/state"
"""Where conda keeps the variables that an environment sets."""
_CREDENTIAL = re.compile(
    rb"""["'][\w.-]*(?i:password|passwd|token|secret|api_?key)[\w.-]*["']\s*:\s*["'][^"']|://[^/\s:@'"]*:[^/\s@'"]+@|/t/[^/\s'"]+/|(?im:^\s*["']?[\w.-]*(password|passwd|token|secret|api_?key)["']?\s*[:=]\s*\S)"""
)
_KEY_SUFFIXES = (".pem", ".key", ".p12", ".pfx", ".jks", ".keystore")
_PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----")
_MOST = 1 << 20

VCS_FOLDER = "a version control system's folder"
FILE, PLACE, CONFIGURATION, KEY = (
    "a file for credentials",
    "a place for credentials",
    "a configuration with credentials",
    "a private key",
)
REASONS = frozenset({FILE, PLACE, CONFIGURATION, KEY})
"""Why something does not ship that its user may have wanted to ship."""


def secret(path: str, name: str, source: str) -> str | None:
    """Why the file or folder `path` (its last part: `name`) must not ship; None where it may.

    `source` is where its bytes are: looked at only for the few names that may or may not hold a secret.
    """
    # Nearly every name of an environment fails here, on its first or last characters.
    if not (name[0] in ".i_cpumsCP" or name.endswith(_KEY_SUFFIXES)):
        return None
    if name in VCS:
        return VCS_FOLDER
    if name in _NAMES or _ENV.fullmatch(name):
        return FILE
    if any((path == known or path.endswith("/" + known)) for known in _FOLDERS):
        return PLACE
    if name in _CONFIGURATION or path == _STATE:
        return CONFIGURATION if _CREDENTIAL.search(_head(source)) else None
    if name.endswith(_KEY_SUFFIXES):
        binary = name.endswith((".p12", ".pfx", ".jks", ".keystore"))
        return KEY if binary or _PRIVATE_KEY.search(_head(source)) else None
    return None


def _head(source: str) -> bytes:
    if os.path.isdir(source):
        return b""
    try:
        with open(source, "rb") as file:
            return file.read(_MOST)
    except OSError:
        return b""
