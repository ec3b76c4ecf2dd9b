"""The scheme of a registry on loopback: HTTPS, or plain HTTP if the server refuses TLS.

Both are usual there: `docker run registry` without TLS, a forwarded port or a tunnel with TLS. The
question is a TLS handshake without verification, which decides the scheme alone: over HTTPS, each
connection verifies the certificate, and a certificate that fails is an error and not a refusal.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from lamella.layers.registry.connection import CONNECT_TIMEOUT
from lamella.layers.registry.failures import is_not_tls
from lamella.layers.registry.retry import Interrupted, Refused

if TYPE_CHECKING:
    from lamella.layers.registry.url import Address

_lock = threading.Lock()
_known: dict[str, str] = {}
"""The scheme of each host and port: an operation has several clients for one registry."""


def spoken(address: Address) -> str:
    """Return `https` or `http` for the registry at `address`. Raises `Unreachable`.

    A clear answer is remembered in this process.
    """
    authority = address.authority
    with _lock:
        if authority in _known:
            return _known[authority]
    try:
        refused = _refuses_tls(address.host, address.port or 443)
    except ConnectionRefusedError as error:
        if address.port is None:
            # Nothing listens at HTTPS's port; the registry can be at HTTP's.
            return "http"
        raise Refused(f"{authority}: cannot connect: {error}; check the registry's name, and that it is up") from error
    except TimeoutError as error:
        raise Interrupted(f"{authority}: timed out; try again later") from error
    except OSError as error:
        raise Refused(f"{authority}: cannot connect: {error}; check the registry's name, and that it is up") from error
    if refused is None:
        # An end in silence can also be a tunnel without a server behind it.
        return "http"
    scheme = "http" if refused else "https"
    with _lock:
        _known[authority] = scheme
    return scheme


def forget(address: Address) -> None:
    """Ask again next time: another server can be at this port by then."""
    with _lock:
        _known.pop(address.authority, None)


def _refuses_tls(host: str, port: int) -> bool | None:
    """Return whether the server answers a handshake in plain text; None if it closes silently."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), CONNECT_TIMEOUT) as plain:
        try:
            with contextlib.closing(context.wrap_socket(plain, server_hostname=host)):
                return False
        except TimeoutError:
            raise
        except (ssl.SSLEOFError, ConnectionError):
            return None
        except ssl.SSLError as error:
            # Any other failure is an answer in TLS, such as an alert about a missing client
            # certificate.
            return is_not_tls(error)
