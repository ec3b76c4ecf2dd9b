"""Who we are to a registry: what Docker's and podman's clients know, from their files and credential helpers.

The files, first match first: the one that REGISTRY_AUTH_FILE names; Docker's (`config.json` in DOCKER_CONFIG or
~/.docker); podman's (`containers/auth.json` in XDG_RUNTIME_DIR, then in XDG_CONFIG_HOME). Source: containers-auth.json(5).
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
from lamella.layers.homes import config_folder, home, runtime_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER_HUB = "https://index.docker.io/v1/"
"""What Docker's clients file docker.io under."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one registry knows us by: a user with a password, or an identity token that buys tokens in its place."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


def find(registry: str, repository: str = "") -> Credentials | None:
    """The credentials for `registry` (as references write it, such as ghcr.io), or None: ask anonymously.

    podman's files may hold some for a part of a registry: the entry that is closest to `repository` counts. Raises
    `CredentialsError` on a file that can't be understood and a helper that is missing or fails.
    """
    for path in _files():
        document = read_file(path)
        if document and (found := _in_file(path, document, registry, repository)):
            return found
    return None


def docker_file() -> str:
    """The file that `docker login` would write; empty if it has no place, since this user has no home."""
    folder = os.environ.get("DOCKER_CONFIG") or (f"{home()}/.docker" if home() else "")
    return os.path.join(folder, "config.json") if folder else ""


def read_file(path: str) -> dict[str, Any]:
    """The file's document; empty where there is no such file."""
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
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
    """The credential helper (the part of its name after docker-credential-) that the file names for `registry`."""
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
    """What `registry` is filed under."""
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
    from docker import auth, errors

    helper = helper_of(document, registry, path)
    config = {
        "auths": _entries(document.get("auths"), registry, repository),
        "credHelpers": {key_of(registry): helper} if helper else {},
    }
    try:
        # It knows docker.io's many names, identity tokens and the helpers' protocol; of docker.io's, helpers know one.
        name = key_of(registry) if helper else registry
        found = auth.resolve_authconfig(auth.load_config(config_dict=config), name)
    except errors.DockerException as error:
        # What a helper says may hold a secret.
        if helper:
            raise CredentialsError(
                f"docker-credential-{helper}: the credential helper failed for {registry}"
            ) from error
        raise CredentialsError(f"{path}: the entry for {registry} is invalid; log in again") from error
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise CredentialsError(f"{path}: the entry for {registry} is invalid; log in again") from error
    # The library spells the keys in two ways.
    values = {key.lower(): value for key, value in (found or {}).items() if value}
    if not values.get("identitytoken") and not values.get("password"):
        return None
    return Credentials(values.get("username", ""), values.get("password", ""), values.get("identitytoken", ""))


def _entries(auths: object, registry: str, repository: str) -> dict[str, Any]:
    """The one entry of `auths` that is closest to the repository, under the registry's own name; or none."""
    if not isinstance(auths, dict):
        return {}
    parts = repository.split("/") if repository else []
    for count in range(len(parts), -1, -1):
        name = "/".join([registry, *parts[:count]])
        for key, entry in auths.items():
            if plain(key) == name and isinstance(entry, dict):
                return {registry: _with_auth(entry)}
    return {}


def plain(key: str) -> str:
    """The registry, or the part of one, that a file's key means."""
    # Old and hand-written files have a URL here, and Docker Hub under its several names.
    name = re.sub(r"^https?://|(/v[12])?/*$", "", key)
    return "docker.io" if name in {"index.docker.io", "registry-1.docker.io"} else name


def _with_auth(entry: dict[str, Any]) -> dict[str, Any]:
    # Kubernetes' pull secrets are allowed to have the two apart.
    if "auth" not in entry and "password" in entry:
        pair = f"{entry.get('username', '')}:{entry['password']}"
        return {**entry, "auth": base64.b64encode(pair.encode()).decode()}
    return entry
