"""Failures as this package's errors: a status that was not expected, and a connection that broke.

Errors that another try may mend are `Interrupted`. Source: RFC 9110; distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import contextlib
import html
import json
import re
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound, Unreachable
from lamella.layers.registry.retry import Interrupted, Refused, retry_after
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.registry.client import Response

_REASON = 16 << 10
"""Bytes of an answer that are searched for its reason."""
_RETRIED = frozenset({408, 425, 429})
_PERMANENT = frozenset({501, 505})
"""Server errors that a retry cannot mend; a proxy's own, such as 520 and 529, are like 503."""

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


def failure_of(response: Response, what: str, login: str) -> LayersError:
    """Return the error for a response about `what`, and close it.

    `login`: the registry that takes a login for this host, or empty if the host is not to be trusted with one.
    """
    host, status = response.host, response.status
    reason = _reason(response)
    if status == 407 and response.proxy:
        return _proxy_refusal(response.proxy, host, f"{status}{reason}")
    if status in _RETRIED or (status >= 500 and status not in _PERMANENT):
        wait = retry_after(response.header("Retry-After"))
        return Interrupted(f"{host} could not be asked for {what}: it answered {status}{reason}; try again later", wait)
    if status in {401, 403} and not login:
        return Denied(f"{host}, where the registry continues, denies {what}{reason}; try again later")
    if status == 401:
        return Denied(f"{host} refuses the credentials for {what}{reason}; log in with lamella login {login}")
    if status == 403 and response.proxy:
        return Denied(
            f"{host}, or the proxy {response.proxy} in between, denies {what}{reason}; "
            f"add {host} to NO_PROXY, or log in with lamella login {login}"
        )
    if status == 403:
        return Denied(f"{host} denies {what}{reason}; log in with lamella login {login}, or ask for the right to it")
    if status == 404:
        return NotFound(f"{host} has no {what}{reason}")
    if status == 405 and response.method not in {"GET", "HEAD"}:
        return Denied(f"{host}: read-only, it answered 405 for {what}{reason}; use a registry that takes pushes")
    if status == 413:
        return InvalidContent(
            f"{host} answered 413 for {what}{reason}: request too large; raise the limit of the registry or of the "
            "proxy before it, such as nginx's client_max_body_size"
        )
    # A server with TLS answers so; the reason is missing in the answer to a HEAD.
    if status == 400 and response.address.scheme == "http" and (not reason or "https" in reason.lower()):
        return InvalidContent(f"{host}: answered 400 to plain HTTP{reason}; leave out --insecure if it speaks HTTPS")
    return InvalidContent(f"{host} answered {status} for {what}{reason}")


@contextlib.contextmanager
def translated(host: str, proxy: str = "") -> Iterator[None]:
    """Translate the HTTP library's errors about `host`, asked through the proxy with this authority if any."""
    from urllib3 import exceptions

    try:
        yield
    except exceptions.NewConnectionError as error:
        reason = str(error).partition(": ")[2] or "no connection"
        raise Refused(f"{host}: cannot connect: {reason}; check the registry's name, and that it is up") from error
    except exceptions.SSLError as error:
        raise _tls_failure(host, error.args[0] if error.args else error) from error
    except exceptions.LocationValueError as error:
        # The error's text may hold a signed URL.
        raise InvalidContent(f"{host}: invalid URL; check for a proxy in between") from error
    except (exceptions.HTTPError, OSError) as error:
        # http.client has no error of its own for a proxy's answer to CONNECT.
        answer = re.search(r"Tunnel connection failed: (\d{3})([^')]*)", str(error)) if proxy else None
        if answer and not (answer[1].startswith("5") or int(answer[1]) in _RETRIED):
            raise _proxy_refusal(proxy, host, escaped(f"{answer[1]}{answer[2]}", 100)) from error
        if answer or isinstance(error, exceptions.ProxyError):
            detail = f" ({answer[1]})" if answer else ""
            raise Refused(
                f"{host}: cannot connect through the proxy {proxy}{detail}; check HTTPS_PROXY and NO_PROXY"
            ) from error
        if isinstance(error, exceptions.TimeoutError):
            raise Interrupted(f"{host}: timed out; try again later") from error
        raise Interrupted(f"{host}: connection lost: {error}; try again later") from error


def is_not_tls(error: BaseException) -> bool:
    """Return whether a handshake failed since the server answered in plain text."""
    return getattr(error, "reason", None) in _NOT_TLS


def _proxy_refusal(proxy: str, host: str, answer: str) -> Denied:
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


def _reason(response: Response) -> str:
    """Return the reason in an error's body, in parentheses with a space before them, or an empty string."""
    content = b""
    with response, contextlib.suppress(LayersError):
        while len(content) < _REASON and (part := response.read(_REASON - len(content))):
            content += part
    text = " ".join(_text_of(content, response.content_type).split())
    return f" ({escaped(text, 200)})" if text else ""


def _text_of(content: bytes, content_type: str) -> str:
    if content_type == "text/html":
        title = re.search(rb"<title>([^<]*)</title>", content, re.IGNORECASE)
        return html.unescape(title[1].decode("utf-8", "replace")) if title else ""
    try:
        return _errors_of(json.loads(content))
    except (ValueError, RecursionError):
        # Go's servers and many proxies answer in plain text.
        return content.decode("utf-8", "replace") if content_type in {"", "text/plain"} else ""


def _errors_of(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    if isinstance(errors, list):
        pairs = [(error.get("code"), error.get("message")) for error in errors if isinstance(error, dict)]
        return ", ".join(" ".join(part for part in pair if isinstance(part, str) and part) for pair in pairs)
    found = [document.get(name) for name in ("message", "error_description", "error", "details")]
    return next((text for text in found if isinstance(text, str)), "")
