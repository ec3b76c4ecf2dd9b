"""Credentials for a registry, from the files and helpers of Docker's and podman's clients.

The files, first match first: the one that REGISTRY_AUTH_FILE names; Docker's (`config.json` in
DOCKER_CONFIG or ~/.docker); podman's (`containers/auth.json` in XDG_RUNTIME_DIR, then in
XDG_CONFIG_HOME). Source: containers-auth.json(5).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import CredentialsError
from lamella.layers.registry import credential_helper
from lamella.layers.settings.homes import config_folder, home, runtime_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER_HUB = "https://index.docker.io/v1/"
"""The key of docker.io in Docker's file and helpers."""

_IDENTITY_TOKEN = "<token>"
"""The user name of an identity token, by docker-credential-helpers."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user with a password, or an identity token that is exchanged for tokens instead."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find(registry: str, repository: str = "") -> Credentials | None:
    """Return the credentials for `registry` (as references write it, such as ghcr.io), or None.

    podman's files may have entries for a part of a registry: the one closest to `repository`
    counts. Raises `CredentialsError` if a file or helper fails and no later file has credentials.
    """
    problem = None
    for path in _files():
        try:
            document = read_file(path)
            if document and (found := _in_file(path, document, registry, repository)):
                return found
        except CredentialsError as error:
            problem = problem or error
    if problem:
        raise problem
    return None


def docker_file() -> str:
    """Return the path of the file that `docker login` writes; empty for a user without a home."""
    folder = os.environ.get("DOCKER_CONFIG") or (f"{home()}/.docker" if home() else "")
    return os.path.join(folder, "config.json") if folder else ""


def read_file(path: str) -> dict[str, Any]:
    """Return the document in a file; `{}` for a missing or empty one. Raises `CredentialsError`."""
    try:
        with open(path, encoding="utf-8") as file:
            content = file.read()
            document = json.loads(content) if content.strip() else {}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CredentialsError(f"cannot read the credentials in {path}: {error.strerror}") from error
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise CredentialsError(f"{path}: not valid JSON; correct it, or move it away and log in again")
    return document


def helper_of(document: dict[str, Any], registry: str, path: str) -> str:
    """Return the NAME of the file's `docker-credential-NAME` for `registry`, or an empty string."""
    helpers = document.get("credHelpers")
    names = helpers if isinstance(helpers, dict) else {}
    name = names.get(registry) or names.get(key_of(registry)) or document.get("credsStore") or ""
    if name and not shutil.which(f"docker-credential-{name}"):
        raise CredentialsError(
            f"{path}: credential helper docker-credential-{name} not found on PATH; "
            "install it, or remove it from that file and log in again"
        )
    return str(name)


def key_of(registry: str) -> str:
    """Return the key of `registry` in files and helpers."""
    return DOCKER_HUB if registry == "docker.io" else registry


def _files() -> Iterator[str]:
    if named := os.environ.get("REGISTRY_AUTH_FILE"):
        yield named
    if file := docker_file():
        yield file
    for folder in (runtime_folder(), config_folder()):
        if folder:
            yield os.path.join(folder, "containers", "auth.json")


def _in_file(path: str, document: dict[str, Any], registry: str, repository: str) -> Credentials | None:
    if helper := helper_of(document, registry, path):
        found = credential_helper.get(helper, key_of(registry))
        if found and found[0] == _IDENTITY_TOKEN:
            return Credentials(identity_token=found[1])
        if found:
            return Credentials(*found)
    entry = _entry(document.get("auths"), registry, repository)
    try:
        return _parsed(entry)
    except (ValueError, TypeError, AttributeError, binascii.Error) as error:
        raise CredentialsError(f"{path}: the entry for {registry} is invalid; log in again") from error


def _entry(auths: object, registry: str, repository: str) -> dict[str, Any]:
    """Return the entry of `auths` that is closest to the repository, or `{}`."""
    if not isinstance(auths, dict):
        return {}
    parts = repository.split("/") if repository else []
    for count in range(len(parts), -1, -1):
        name = "/".join([registry, *parts[:count]])
        for key, entry in auths.items():
            if plain(key) == name and isinstance(entry, dict):
                return entry
    return {}


def _parsed(entry: dict[str, Any]) -> Credentials | None:
    """Return an entry's credentials; None for one that is empty, such as a helper's own."""
    if token := entry.get("identitytoken"):
        return Credentials(identity_token=_text(token))
    if auth := entry.get("auth"):
        # Docker's clients pad it with NULs.
        username, colon, password = base64.b64decode(auth, validate=True).decode().rstrip("\0").partition(":")
        if not colon:
            raise ValueError("no password")
        return Credentials(username, password) if password else None
    # Kubernetes' pull secrets may have the two apart.
    if entry.get("password"):
        return Credentials(_text(entry.get("username", "")), _text(entry["password"]))
    return None


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(type(value))
    return value


def plain(key: str) -> str:
    """Return the registry, or the part of one, that a file's key names."""
    # Old and hand-written files have a URL here, and Docker Hub under any of its names.
    name = re.sub(r"^https?://|(/v[12])?/*$", "", key)
    return "docker.io" if name in {"index.docker.io", "registry-1.docker.io"} else name
