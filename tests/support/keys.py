"""Key pairs for signatures, made by openssl."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from support.engines import need

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "ecdsa": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "rsa": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
    "ed25519": ["ED25519"],
}


def key_pair(folder: Path, name: str = "ours", kind: str = "ecdsa") -> tuple[str, str]:
    """A private and a public key's files, made by openssl."""
    private, public = f"{folder}/{name}.pem", f"{folder}/{name}.pub"
    openssl = need("openssl")
    subprocess.run([openssl, "genpkey", "-algorithm", *KINDS[kind], "-out", private], check=True, capture_output=True)
    subprocess.run([openssl, "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public
