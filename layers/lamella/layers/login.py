"""Logging in and out: credentials in the file that Docker's clients read, or with the helper that it names."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any

from lamella.layers.credentials import Credentials, docker_file, helper_of, key_of, read_file
from lamella.layers.errors import CredentialsError
from lamella.layers.registry import client_of
from lamella.layers.retry import patiently

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docker.credentials import Store


def login(registry: str, username: str, password: str, *, insecure: bool = False) -> str:
    """Keeps credentials for `registry` after the registry has taken them; returns the file or helper that has them.

    Raises `Denied` where the registry refuses them, `Unreachable`, and `CredentialsError` where they can't be kept.
    """
    known = Credentials(username, password)
    client = client_of(registry, lambda: known, insecure=insecure)
    with contextlib.closing(client):
        patiently(client.patience, lambda: client.request("GET", "/", "this login", {200})).close()
    path = _path()
    document = read_file(path)
    helper = helper_of(document, registry, path)
    entries = _auths(document)
    if helper:
        with _helped(helper, registry) as store:
            store.store(key_of(registry), username, password)
        # Docker's clients list there whom the helper knows.
        entries[key_of(registry)] = {}
    else:
        entries[key_of(registry)] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    _write(path, document)
    return f"docker-credential-{helper}" if helper else path


def logout(registry: str) -> bool:
    """Forgets the credentials for `registry`; whether there were any."""
    path = _path()
    document = read_file(path)
    helper = helper_of(document, registry, path)
    known = _auths(document).pop(key_of(registry), None) is not None
    if known:
        _write(path, document)
    if helper:
        with _helped(helper, registry) as store:
            store.erase(key_of(registry))
            known = True
    return known


def _path() -> str:
    # Where podman's file is named, it is the first that is read; what is kept elsewhere would not be found.
    return os.environ.get("REGISTRY_AUTH_FILE") or docker_file()


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    entries = document.setdefault("auths", {})
    if not isinstance(entries, dict):
        raise CredentialsError(f"'auths' in {_path()} is not an object: correct it, or move the file away")
    return entries


@contextlib.contextmanager
def _helped(helper: str, registry: str) -> Iterator[Store]:
    from docker.credentials import Store, errors

    try:
        yield Store(helper)
    except errors.CredentialsNotFound:
        pass
    except errors.StoreError as error:
        raise CredentialsError(f"the credential helper docker-credential-{helper} failed for {registry}") from error


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
        raise CredentialsError(f"can't keep the credentials in {path}: {error.strerror}") from error
