"""Logging in and out: credentials in the file of Docker's clients, or with its helper."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from typing import Any

from lamella.layers.errors import CredentialsError, InvalidReference, NotFound
from lamella.layers.oci.reference import is_registry
from lamella.layers.registry import credential_helper
from lamella.layers.registry.credentials import Credentials, docker_file, helper_of, key_of, plain, read_file
from lamella.layers.registry.endpoint import client_of
from lamella.layers.registry.retry import patiently
from lamella.layers.registry.url import is_loopback
from lamella.layers.settings.policy import check_registry
from lamella.layers.settings.trust import Trust


def registry_name(text: str) -> str:
    """Return the registry in `text`, as references write it; accept a URL.

    Raises `InvalidReference`.
    """
    registry = plain(text)
    if not is_registry(registry):
        shown = text.rpartition("@")[2][:100]
        raise InvalidReference(f"{shown}: not a registry; use its host alone, such as ghcr.io or localhost:5000")
    return registry


def login(registry: str, username: str, password: str, *, trust: Trust = Trust()) -> str:
    """Try credentials at `registry`, store them, and return the file or helper that has them.

    Replaces credentials stored earlier under any spelling of the registry's name. Raises `Denied`
    if the registry refuses them, `InvalidReference` or `NotFound` if it is not a registry,
    `Unreachable`, `CredentialsError` if they can't be stored.
    """
    registry = registry_name(registry)
    plain = trust.insecure and not is_loopback(registry)
    check_registry(registry, "", insecure=plain, hosts_dir=trust.hosts_dir)
    path = _path()
    known = Credentials(username, password)
    client = client_of(registry, lambda: known, trust=trust)
    with contextlib.closing(client):
        try:
            patiently(client.patience, lambda: client.request("GET", "/", "this login", {200})).close()
        except NotFound as error:
            raise NotFound(f"{registry}: not a registry, it has no /v2/; check its name") from error
    document = read_file(path)
    helper = helper_of(document, registry, path)
    entries = _auths(document)
    _forget(entries, registry)
    if helper:
        credential_helper.store(helper, key_of(registry), username, password)
        # Docker's clients list the helper's servers there.
        entries[key_of(registry)] = {}
    else:
        entries[key_of(registry)] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    _write(path, document)
    return f"docker-credential-{helper}" if helper else path


def logout(registry: str) -> bool:
    """Remove the stored credentials for `registry`; returns whether there were any.

    Idempotent. Raises `InvalidReference`, and `CredentialsError` if the file or helper can't be
    used.
    """
    registry = registry_name(registry)
    path = _path()
    document = read_file(path)
    helper = helper_of(document, registry, path)
    known = _forget(_auths(document), registry)
    if known:
        _write(path, document)
    return (bool(helper) and credential_helper.erase(helper, key_of(registry))) or known


def _path() -> str:
    # REGISTRY_AUTH_FILE is read first: an entry in another file could stay hidden behind one there.
    path = os.environ.get("REGISTRY_AUTH_FILE") or docker_file()
    if not path:
        raise CredentialsError("no home folder for credentials; set HOME, or DOCKER_CONFIG to a folder of your own")
    return path


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    entries = document.setdefault("auths", {})
    if not isinstance(entries, dict):
        raise CredentialsError(f"{_path()}: 'auths' is not an object; correct it, or move the file away")
    return entries


def _forget(entries: dict[str, Any], registry: str) -> bool:
    # A lookup takes the first key that means the registry, in any spelling.
    meant = [key for key in entries if plain(key) == registry]
    for key in meant:
        del entries[key]
    return bool(meant)


def _write(path: str, document: dict[str, Any]) -> None:
    # A link stays a link: people keep the file elsewhere.
    path = os.path.realpath(path)
    partial = ""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        # mkstemp's files are 0600 from the start.
        handle, partial = tempfile.mkstemp(prefix=".partial-", dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise CredentialsError(
            f"cannot write the credentials to {path}: {error.strerror}; set DOCKER_CONFIG to another folder"
        ) from error
