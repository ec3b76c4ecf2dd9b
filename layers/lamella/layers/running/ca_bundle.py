"""Certificate authorities for an environment whose OpenSSL looks for them where this machine has none.

OpenSSL looks where the machine that built it kept them: Debian's `/usr/lib/ssl` is on no Red Hat system, and a conda
prefix that a venv borrowed its interpreter from is on no node at all.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Source: Go's crypto/x509, root_linux.go.
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def certificate_file(
    prefix: str, looks: Sequence[str] | None, before: Mapping[str, str], bundles: Sequence[str] = _BUNDLES
) -> str:
    """The file that SSL_CERT_FILE should name for the environment at `prefix`; empty if it should stay unset.

    `looks` is `PublishedEnvironment.certificates`. This machine's own bundle goes before the environment's certifi; what
    the user set, `before`, goes before both.
    """
    if looks is None or before.get("SSL_CERT_FILE") or before.get("SSL_CERT_DIR") or any(map(_holds_any, looks)):
        return ""
    import glob

    certifi = glob.glob(os.path.join(glob.escape(prefix), "lib", "python3.*", "site-packages", "certifi", "cacert.pem"))
    return next(filter(os.path.isfile, (*bundles, *sorted(certifi))), "")


def _holds_any(path: str) -> bool:
    if not os.path.isdir(path):
        return os.path.isfile(path)
    with os.scandir(path) as found:
        return next(found, None) is not None
