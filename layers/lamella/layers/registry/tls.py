"""Whom to trust as a registry: the system's authorities, and private ones from where Docker's and podman's clients look.

`certs.d/HOST[:PORT]/` holds authorities for one registry (`*.crt`), and client certificates (`*.cert` with `*.key`).
SSL_CERT_FILE replaces the system's, as everywhere. Source: containers-certs.d(5).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.layers.errors import CredentialsError
from lamella.layers.homes import config_folder

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Iterator


def context(host: str, authorities: Iterable[str] = (), *, verify: bool = True) -> ssl.SSLContext:
    """The TLS settings for `host` (with its port, if it has one), trusting the files in `authorities` as well."""
    import ssl

    made = ssl.create_default_context()
    # Strict from Python 3.13 on: it refuses private authorities without a key usage, which every other client takes.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    for path in [*authorities, *_files(host, ".crt")]:
        try:
            made.load_verify_locations(path)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(f"{path}: not a PEM file of certificate authorities: {error}") from error
    for path in _files(host, ".cert"):
        key = path.removesuffix(".cert") + ".key"
        try:
            made.load_cert_chain(path, key)
        except (OSError, ssl.SSLError) as error:
            raise CredentialsError(f"{path}, {key}: not a client certificate and key in PEM: {error}") from error
    return made


def known(host: str) -> bool:
    """Whether there are certificates for `host`, so that it is asked over TLS."""
    return any(os.path.isdir(folder) for folder in _folders(host))


def _folders(host: str) -> Iterator[str]:
    own = [f"{config}/containers"] if (config := config_folder()) else []
    for folder in (*own, "/etc/containers", "/etc/docker"):
        yield os.path.join(folder, "certs.d", host)


def _files(host: str, suffix: str) -> Iterator[str]:
    for folder in _folders(host):
        if os.path.isdir(folder):
            yield from (os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(suffix))
