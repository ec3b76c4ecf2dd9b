"""Responses: a body read in time and in bounds, and a status that was not expected as an error.

Source: RFC 9110; distribution-spec v1.1, "Error Codes".
"""

from __future__ import annotations

import contextlib
import html
import re
import time
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound, Unreachable
from lamella.layers.oci.parsing import parse_object
from lamella.layers.registry.failures import BUSY, proxy_refusal, translated
from lamella.layers.registry.retry import SLOWEST, Interrupted, retry_after
from lamella.layers.text import escaped, size

if TYPE_CHECKING:
    from collections.abc import Mapping

    import urllib3
    from typing_extensions import Self

    from lamella.layers.registry.url import Address

_SMALL = 16 << 10
"""Bytes that are read to keep a connection, or to find the reason of an error."""
_PERMANENT = frozenset({501, 505})
"""Server errors that a retry cannot mend; a proxy's own, such as 520 and 529, are like 503."""


class Response:
    """A response with its body unread, with this package's errors. The caller closes it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, method: str, address: Address, window: float, proxy: str) -> None:
        self._raw = raw
        self._window = window
        self._waited = 0.0
        self._came = 0
        self.method = method
        self.address = address
        self.host = displayed(address)
        self.status = raw.status
        self.proxy = proxy
        """The proxy that could have made this response in place of the host, or an empty string."""

    def header(self, name: str) -> str:
        """Return the header's value, or an empty string."""
        return self._raw.headers.get(name) or ""

    def headers(self, name: str) -> list[str]:
        """Return every value of a header that may come more than once."""
        return self._raw.headers.getlist(name)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def read(self, size: int = -1, /) -> bytes:
        """Read the bytes that came, at most `size`.

        Raises `Interrupted` for an early end or a drip.
        """
        begin = time.monotonic()
        with translated(self.host):
            # read1: read() would wait for all of `size`, however slowly it comes.
            chunk = self._raw.read1(None if size < 0 else size, decode_content=False) or b""
        # Only waiting counts: unpacking between two reads may take its time.
        self._waited += time.monotonic() - begin
        self._came += len(chunk)
        if self._waited > self._window:
            if self._came < SLOWEST * self._waited:
                raise Interrupted(f"{self.host}: slower than {SLOWEST} bytes a second; try again later")
            self._waited, self._came = 0.0, 0
        return chunk

    def body(self, limit: int) -> bytes:
        """Read the whole body, at most `limit` bytes, and close the response.

        Raises `InvalidContent`.
        """
        with self:
            parts, left = [], limit + 1
            while left and (part := self.read(left)):
                parts.append(part)
                left -= len(part)
        if not left:
            raise InvalidContent(f"{self.host}: answer larger than {size(limit)}, expected a small document")
        return b"".join(parts)

    def json(self, limit: int) -> dict[str, Any]:
        """Read the body as a JSON object of at most `limit` bytes and close the response.

        Raises `InvalidContent`.
        """
        content = self.body(limit)
        try:
            return parse_object(content, "the answer")
        except InvalidContent:
            raise InvalidContent(f"{self.host}: answer is not JSON; check for a proxy in between") from None

    def close(self) -> None:
        """Close the response; keep its connection if the rest is short. Idempotent."""
        left = self._raw.length_remaining
        if left is None or left > _SMALL:
            self._raw.close()
        else:
            with contextlib.suppress(Unreachable):
                while self.read():
                    pass
        self._raw.release_conn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def displayed(address: Address) -> str:
    """Return the host and port of an address, as references and logins write them."""
    return address.authority.replace("registry-1.docker.io", "docker.io")


def login_advice(registry: str) -> str:
    """Return the advice to log in to a registry."""
    # A reference without a registry, such as team/envs:v1, is one of docker.io: often the registry was forgotten.
    forgotten = "write REGISTRY/REPOSITORY:TAG for another registry, or " if registry == "docker.io" else ""
    return f"{forgotten}log in with lamella login {registry}"


def failure_of(response: Response, what: str, login: str) -> LayersError:
    """Return the error for a response about `what`, and close it.

    `login`: the registry to log in to, or empty if this host must not get credentials.
    """
    host, status = response.host, response.status
    reason = _reason(response)
    if status == 407 and response.proxy:
        return proxy_refusal(response.proxy, host, f"{status}{reason}")
    if status in BUSY or (status >= 500 and status not in _PERMANENT):
        wait = retry_after(response.header("Retry-After"))
        return Interrupted(f"{host} could not be asked for {what}: it answered {status}{reason}; try again later", wait)
    if status in {401, 403} and not login:
        return Denied(f"{host}, where the registry continues, denies {what}{reason}; try again later")
    if status == 401:
        return Denied(f"{host} refuses the credentials for {what}{reason}; {login_advice(login)}")
    if status == 403 and response.proxy:
        return Denied(
            f"{host}, or the proxy {response.proxy} in between, denies {what}{reason}; "
            f"add {host} to NO_PROXY, or {login_advice(login)}"
        )
    if status == 403:
        return Denied(f"{host} denies {what}{reason}; {login_advice(login)}, or ask for the right to it")
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


def reason_of(response: Response) -> str:
    """Return the status and the reason in the body of a refusal, and close it."""
    return f"{response.status}{_reason(response)}"


def _reason(response: Response) -> str:
    """Return the reason in an error's body, as ` (REASON)`, or an empty string."""
    content = b""
    with response, contextlib.suppress(LayersError):
        while len(content) < _SMALL and (part := response.read(_SMALL - len(content))):
            content += part
    text = " ".join(_text_of(content, response.content_type).split())
    return f" ({escaped(text, 200)})" if text else ""


def _text_of(content: bytes, content_type: str) -> str:
    if content_type == "text/html":
        title = re.search(rb"<title>([^<]*)</title>", content, re.IGNORECASE)
        return html.unescape(title[1].decode("utf-8", "replace")) if title else ""
    try:
        return _errors_of(parse_object(content, "the error"))
    except InvalidContent:
        # Go's servers and many proxies answer in plain text.
        return content.decode("utf-8", "replace") if content_type in {"", "text/plain"} else ""


def _errors_of(document: Mapping[str, Any]) -> str:
    errors = document.get("errors")
    if isinstance(errors, list):
        pairs = [(error.get("code"), error.get("message")) for error in errors if isinstance(error, dict)]
        return ", ".join(" ".join(part for part in pair if isinstance(part, str) and part) for pair in pairs)
    found = [document.get(name) for name in ("message", "error_description", "error", "details")]
    return next((text for text in found if isinstance(text, str)), "")
