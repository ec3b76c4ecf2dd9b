"""A private certificate authority and a server's certificate, made by openssl."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Authority:
    """The authority's certificate, and the settings of a server on loopback."""

    certificate: str
    server: ssl.SSLContext
    own: tuple[str, str]
    """A certificate that the authority signed, and its key."""


def authority(folder: Path, *, days: int = 2, names: str = "DNS:localhost,IP:127.0.0.1") -> Authority:
    """Make one in `folder`; the server's certificate is for `names` and expires in `days`."""
    openssl, subject = need("openssl"), ["-subj", "/CN=lamella tests"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2"]
    ca, ca_key, own, own_key, asked = (
        f"{folder}/{name}" for name in ("ca.crt", "ca.key", "own.crt", "own.key", "own.csr")
    )
    run = [openssl, "req", "-x509", *key, *subject, "-keyout", ca_key, "-out", ca]
    subprocess.run(run, check=True, capture_output=True)
    run = [openssl, "req", "-new", *key[:-2], *subject, "-keyout", own_key, "-out", asked]
    subprocess.run(run, check=True, capture_output=True)
    extensions = f"{folder}/extensions"
    with open(extensions, "w", encoding="ascii") as file:
        file.write(f"subjectAltName={names}\n")
    run = [
        openssl,
        "x509",
        "-req",
        "-in",
        asked,
        "-CA",
        ca,
        "-CAkey",
        ca_key,
        "-days",
        str(days),
        "-extfile",
        extensions,
    ]
    subprocess.run([*run, "-out", own], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(own, own_key)
    return Authority(ca, server, (own, own_key))
