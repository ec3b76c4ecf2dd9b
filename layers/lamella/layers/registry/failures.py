"""Failed connections as this package's errors; those that a retry may mend are `Interrupted`."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from lamella.layers.errors import Denied, InvalidContent, Unreachable
from lamella.layers.registry.retry import Interrupted, Refused
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY = frozenset({408, 425, 429})
"""Statuses below 500 that a retry may mend."""

_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
)
"""OpenSSL's reasons for bytes that are not TLS: its versions name an HTTP answer differently."""
_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 9, 10, 62, 64
"""OpenSSL's X509_V_ERR_ codes."""


class NotTls(Unreachable):
    """A server that answered a TLS handshake in plain text."""


@contextlib.contextmanager
def translated(host: str, proxy: str = "") -> Iterator[None]:
    """Translate the HTTP library's errors about `host`, asked through `proxy` if any."""
    from urllib3 import exceptions

    try:
        yield
    except exceptions.NewConnectionError as error:
        reason = str(error).partition(": ")[2] or "no connection"
        check = "check the registry's name, and that it is up"
        if host == "docker.io":
            check = "a reference without a registry is one of docker.io; write REGISTRY/REPOSITORY:TAG"
        raise Refused(f"{host}: cannot connect: {reason}; {check}") from error
    except exceptions.SSLError as error:
        raise _tls_failure(host, error.args[0] if error.args else error) from error
    except exceptions.LocationValueError as error:
        # The error's text may hold a signed URL.
        raise InvalidContent(f"{host}: invalid URL; check for a proxy in between") from error
    except (exceptions.HTTPError, OSError) as error:
        # http.client has no error of its own for a proxy's answer to CONNECT.
        answer = re.search(r"Tunnel connection failed: (\d{3})([^')]*)", str(error)) if proxy else None
        if answer and not (answer[1].startswith("5") or int(answer[1]) in BUSY):
            raise proxy_refusal(proxy, host, escaped(f"{answer[1]}{answer[2]}", 100)) from error
        if answer or isinstance(error, exceptions.ProxyError):
            detail = f" ({answer[1]})" if answer else ""
            raise Refused(
                f"{host}: cannot connect through the proxy {proxy}{detail}; check HTTPS_PROXY and NO_PROXY"
            ) from error
        if isinstance(error, exceptions.TimeoutError):
            raise Interrupted(f"{host}: timed out; try again later") from error
        raise Interrupted(f"{host}: connection lost: {error}; try again later") from error


def is_not_tls(error: BaseException) -> bool:
    """Return whether a handshake failed because the server answered in plain text."""
    return getattr(error, "reason", None) in _NOT_TLS


def proxy_refusal(proxy: str, host: str, answer: str) -> Denied:
    """Return the error for a proxy's refusal of `host`; `answer` begins with its status."""
    if answer.startswith("407"):
        return Denied(
            f"proxy {proxy}: requires a login ({answer}); write USER:PASSWORD@ before its host in HTTPS_PROXY"
        )
    return Denied(f"proxy {proxy}: refuses {host} ({answer}); ask its administrator, or add {host} to NO_PROXY")


def _tls_failure(host: str, error: BaseException) -> Unreachable:
    if is_not_tls(error):
        return NotTls(f"{host}: speaks plain HTTP, not HTTPS; use --insecure to allow that")
    code = getattr(error, "verify_code", None)
    message = str(getattr(error, "verify_message", "") or error).rstrip(".")
    if code == _EXPIRED:
        return Unreachable(
            f"{host}: certificate expired; ask the registry's operator to renew it, or correct the clock"
        )
    if code == _NOT_YET_VALID:
        return Unreachable(f"{host}: certificate not valid yet; correct this machine's clock")
    if code in {_OTHER_NAME, _OTHER_ADDRESS}:
        return Unreachable(f"{host}: certificate of another host: {message}; use the name in the certificate")
    if code is not None:
        return Unreachable(f"{host}: certificate not trusted: {message}; set LAMELLA_CA_FILE to its authority")
    return Unreachable(f"{host}: TLS failed: {message}; check for a proxy, or a client certificate that it requires")
