"""TLS settings: the system's authorities, and those of Docker and podman for one registry.

`certs.d/HOST[:PORT]/` holds authorities (`*.crt`) and client certificates (`*.cert` with `*.key`).
SSL_CERT_FILE replaces the system's, as everywhere. Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.errors import CredentialsError
from lamella.layers.settings.homes import config_folder

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator


def context(
    host: str, authorities: Iterable[str] = (), *, clients: Iterable[tuple[str, str]] = (), verify: bool = True
) -> ssl.SSLContext:
    """Return the TLS settings for `host` (with its port, if it has one).

    Trusts the files in `authorities` as well, and has the client certificates in `clients`, each
    with its key. Raises `CredentialsError` for a file that is not one.
    """
    import ssl

    made = ssl.create_default_context()
    # Strict from Python 3.13 on: it refuses private authorities without a key usage, which other
    # clients accept.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    found = [certificates_in(folder) for folder in _folders(host)]
    for path in [*authorities, *(path for paths, _ in found for path in paths)]:
        try:
            made.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(f"{path}: not a PEM file of certificate authorities: {error}") from error
    for path, key in [*clients, *(pair for _, pairs in found for pair in pairs)]:
        try:
            made.load_cert_chain(path, key)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(f"{path}, {key}: not a client certificate and key in PEM: {error}") from error
    return made


def authorities_of(host: str) -> list[str]:
    """Return the files with authorities in the folders for `host`."""
    return [path for folder in _folders(host) for path in certificates_in(folder)[0]]


def certificates_in(folder: str) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the authorities in a folder, and the client certificates with their keys."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    paths = [os.path.join(folder, name) for name in names]
    pairs = [(path, f"{path.removesuffix('.cert')}.key") for path in paths if path.endswith(".cert")]
    return tuple(path for path in paths if path.endswith(".crt")), tuple(pairs)


def known(host: str) -> bool:
    """Return whether there is a folder of certificates for `host`, so that it speaks TLS."""
    return any(os.path.isdir(folder) for folder in _folders(host))


def _folders(host: str) -> Iterator[str]:
    own = [f"{config}/containers"] if (config := config_folder()) else []
    for folder in (*own, "/etc/containers", "/etc/docker"):
        yield os.path.join(folder, "certs.d", host)
