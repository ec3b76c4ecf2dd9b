"""HTTP as registries need it: kept connections, signed requests, and no secret to a stranger.

A `Client` talks to one endpoint. It follows redirects without carrying the signature to another host, and turns every
failure into one of this package's errors; those that another try may mend are `Interrupted`. Source: distribution-spec
v1.1, RFC 9110.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound, Unreachable
from lamella.layers.registry.retry import SLOWEST, Interrupted, Patience, Refused, retry_after
from lamella.layers.registry.url import Address, is_loopback

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import urllib3
    from typing_extensions import Self

    from lamella.layers.oci.storage import Reader

CONNECT_TIMEOUT = 15.0
"""Seconds for a connection; a host that is up answers in much less, also across an ocean."""
READ_TIMEOUT = 60.0
"""Seconds without a single byte. Registries that copy a blob when an upload ends are silent for a while."""

_CONNECTIONS = 32
_BLOCK = 64 << 10
"""Bytes of one send, for which the system has CONNECT_TIMEOUT: 16 uploads at once over a poor line must get through."""
_REDIRECTS = 5
_SMALL = 16 << 10
_RETRIED = frozenset({408, 425, 429})
_NEVER = frozenset({501, 505})
"""Of the server's errors, those that say what it can't do; a proxy's own, such as 520 and 529, are like 503."""


@dataclass(frozen=True, slots=True)
class Body:
    """What a request sends. `open` gives the same bytes at every call, so that the request can be tried again."""

    open: Callable[[], contextlib.AbstractContextManager[Reader]]
    size: int


class Signer(Protocol):
    """Signs requests. `lamella.layers.registry.auth.Tokens` is one. Called from any number of threads."""

    def signature(self, scopes: Collection[str]) -> str:
        """The Authorization header for requests within `scopes`; empty if none is needed so far."""

    def answer(self, headers: Iterable[str], scopes: Collection[str], refused: str, what: str) -> str:
        """The Authorization header that a 401 with these WWW-Authenticate `headers` asks for, in place of `refused`.

        Raises `Denied` if there is none.
        """


class Response:
    """A response whose body is not read yet. Reading translates what can break; whoever has it closes it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, address: Address, window: float) -> None:
        self._raw = raw
        self._window = window
        self._waited = 0.0
        self._came = 0
        self.address = address
        # As references and logins write it.
        self.host = address.authority.replace("registry-1.docker.io", "docker.io")
        self.status = raw.status

    def header(self, name: str) -> str:
        """The header's value, or an empty string."""
        return self._raw.headers.get(name) or ""

    def headers(self, name: str) -> list[str]:
        """Every value of a header that may come more than once."""
        return self._raw.headers.getlist(name)

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case."""
        return self.header("Content-Type").partition(";")[0].strip().lower()

    def read(self, size: int = -1, /) -> bytes:
        """What has come, at most `size` bytes; `Interrupted` where the body ends before its Content-Length, or drips."""
        begin = time.monotonic()
        with _translated(self.host):
            # read1: read() would wait until all of `size` is there, however slowly it comes.
            chunk = self._raw.read1(None if size < 0 else size, decode_content=False) or b""
        # Only waiting counts: whoever unpacks what came may take their time.
        self._waited += time.monotonic() - begin
        self._came += len(chunk)
        if self._waited > self._window:
            if self._came < SLOWEST * self._waited:
                raise Interrupted(f"{self.host}: slower than {SLOWEST} bytes a second; try again later")
            self._waited, self._came = 0.0, 0
        return chunk

    def body(self, limit: int) -> bytes:
        """The whole body, of at most `limit` bytes; more is `InvalidContent`. Closes the response."""
        with self:
            parts, left = [], limit + 1
            while left and (part := self.read(left)):
                parts.append(part)
                left -= len(part)
        if not left:
            raise InvalidContent(f"{self.host}: answer larger than {limit} bytes, expected a small document")
        return b"".join(parts)

    def json(self, limit: int) -> Any:
        """The whole body as JSON; what is none, or longer, is `InvalidContent`. Closes the response."""
        content = self.body(limit)
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise InvalidContent(f"{self.host}: answer is not JSON; check for a proxy in between") from None

    def close(self) -> None:
        """Gives the connection back, for reuse where that costs less than a new one."""
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


class Client:
    """Requests to one endpoint, such as https://ghcr.io/v2, from any number of threads."""

    def __init__(
        self,
        base: str,
        *,
        signer: Callable[[Client], Signer] | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: Patience = Patience(),
    ) -> None:
        self.base = base
        self.patience = patience
        self.address = Address.parse(base, base)
        self.host = self.address.authority
        self._signer = signer(self) if signer else None
        self._tls = tls
        self._headers = dict(headers or {})
        self._pools: dict[tuple[str, str], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        target: str,
        what: str,
        expect: Collection[int],
        *,
        scopes: Collection[str] = (),
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Response:
        """One signed attempt, signed anew where the signature was too old.

        `target` is below the base (it begins with a slash) or a URL. A status outside `expect` is raised as the error
        that it stands for, with `what` as its subject.
        """
        url = self.base + target if target.startswith("/") else target
        address = Address.parse(url, self.host)
        if self.address.scheme == "https" != address.scheme:
            raise Denied(f"{self.host} continues at {address.shown}, without HTTPS; set X-Forwarded-Proto in its proxy")
        sent = self._headers | dict(headers or {})
        signer = self._signer if address.origin == self.address.origin else None
        signature = signer.signature(scopes) if signer else ""
        response = self.send(method, url, _signed(sent, signature), body)
        # Whom a redirect led to is not answered: its token server would be shown the registry's credentials.
        if response.status == 401 and signer and response.address.origin == self.address.origin:
            challenges = response.headers("WWW-Authenticate")
            response.close()
            signature = signer.answer(challenges, scopes, signature, what)
            response = self.send(method, url, _signed(sent, signature), body)
        if response.status not in expect:
            raise failure_of(response, what)
        return response

    def send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """One attempt with these very headers, following redirects. They go to the URL's own host only."""
        here = Address.parse(url, self.host)
        for _ in range(_REDIRECTS + 1):
            response = self._send(method, here, headers, body)
            location = response.header("Location")
            if response.status not in {301, 302, 303, 307, 308} or not location:
                return response
            response.close()
            if method not in {"GET", "HEAD"} and response.status < 307:
                raise InvalidContent(f"{self.host}: redirect of {method} refused, its body would be lost")
            there = here.joined(location, here.authority)
            if there.scheme not in {"https", here.scheme}:
                raise Denied(f"{self.host}: redirect to {there.shown} refused, without HTTPS")
            if there.origin != here.origin:
                if body:
                    # It may be a token that buys others.
                    raise Denied(f"{self.host}: redirect of an upload to {there.shown} refused")
                headers = {name: value for name, value in headers.items() if name in {"Accept", "Range"}}
            here = there
        raise InvalidContent(f"too many redirects from {self.host}; last: {here.shown}")

    def close(self) -> None:
        """Closes every connection."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _send(self, method: str, address: Address, headers: Mapping[str, str], body: Body | None) -> Response:
        # identity: a digest is of the bytes as they are, not of what a proxy makes of them.
        sent = {"User-Agent": "lamella", "Accept-Encoding": "identity", **headers}
        with contextlib.ExitStack() as stack:
            chunks: Iterator[bytes] | None = None
            if body:
                sent["Content-Length"] = str(body.size)
                chunks = _chunks(stack.enter_context(body.open()))
            elif method in {"POST", "PUT", "PATCH"}:
                sent["Content-Length"] = "0"
            with _translated(address.authority):
                raw = self._pool(address).urlopen(
                    method, address.url, body=chunks, headers=sent, redirect=False, retries=False, preload_content=False
                )
        return Response(raw, address, self.patience.window)

    def _pool(self, address: Address) -> urllib3.PoolManager:
        scheme, proxy = address.scheme, _proxy(address)
        with self._lock:
            if (scheme, proxy) not in self._pools:
                context = self._tls() if self._tls and scheme == "https" else None
                self._pools[scheme, proxy] = _manager(proxy, context, self.patience.window)
            return self._pools[scheme, proxy]


def failure_of(response: Response, what: str) -> LayersError:
    """The error that a response stands for; closes it."""
    host, status = response.host, response.status
    said = _said(response)
    if status in _RETRIED or (status >= 500 and status not in _NEVER):
        wait = retry_after(response.header("Retry-After"))
        return Interrupted(f"{host} could not be asked for {what}: it answered {status}{said}; try again later", wait)
    if status == 401:
        return Denied(f"{host} refuses the credentials for {what}{said}; log in with lamella login {host}")
    if status == 403:
        return Denied(f"{host} denies {what}{said}; log in with lamella login {host}, or ask for the right to it")
    if status == 404:
        return NotFound(f"{host} has no {what}{said}")
    return InvalidContent(f"{host} answered {status} for {what}{said}")


def _said(response: Response) -> str:
    """What the registry's error document says, as far as it is fit to be shown. Source: distribution-spec, Error Codes."""
    try:
        errors = response.json(_SMALL)["errors"]
        texts = [f"{error.get('code', '')} {error.get('message', '')}".strip() for error in errors]
    except (LayersError, LookupError, TypeError, AttributeError):
        return ""
    text = re.sub(r"[^\x20-\x7e]+", " ", ", ".join(texts))[:200]
    return f" ({text})" if text else ""


def _signed(headers: Mapping[str, str], signature: str) -> dict[str, str]:
    return {**headers, "Authorization": signature} if signature else dict(headers)


def _chunks(stream: Reader) -> Iterator[bytes]:
    while chunk := stream.read(_BLOCK):
        yield chunk


def _proxy(address: Address) -> str:
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    if not proxies or is_loopback(address.authority) or proxy_bypass(address.authority):
        return ""
    return proxies.get(address.scheme) or proxies.get("all") or ""


def _manager(proxy: str, context: ssl.SSLContext | None, window: float) -> urllib3.PoolManager:
    import urllib3

    from lamella.layers.registry.deadline import pool_classes

    options: dict[str, Any] = {
        "num_pools": 8,
        "maxsize": _CONNECTIONS,
        "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
    }
    if context:
        options["ssl_context"] = context
    if not proxy:
        manager = urllib3.PoolManager(**options)
        manager.pool_classes_by_scheme = pool_classes(window)
        return manager
    try:
        Address.parse(proxy, "the environment")
        parts = urlsplit(proxy)
    except (InvalidContent, ValueError):
        # What it is may hold a password.
        raise LayersError("HTTPS_PROXY or HTTP_PROXY: invalid URL; use http://HOST:PORT") from None
    login = f"{parts.username}:{parts.password or ''}" if parts.username else None
    manager = urllib3.ProxyManager(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=login), **options)
    manager.pool_classes_by_scheme = pool_classes(window)
    return manager


@contextlib.contextmanager
def _translated(host: str) -> Iterator[None]:
    from urllib3 import exceptions

    try:
        yield
    except exceptions.NewConnectionError as error:
        reason = str(error).partition(": ")[2] or "no connection"
        raise Refused(f"{host}: cannot connect: {reason}; check the registry's name, and that it is up") from error
    except exceptions.ProxyError as error:
        raise Refused(f"{host}: cannot connect through the proxy; check HTTPS_PROXY and NO_PROXY") from error
    except exceptions.SSLError as error:
        raise Unreachable(
            f"{host}: certificate not trusted: {error}; set LAMELLA_CA_FILE to its authority, or use --insecure for plain HTTP"
        ) from error
    except exceptions.TimeoutError as error:
        raise Interrupted(f"{host}: timed out; try again later") from error
    except exceptions.LocationValueError as error:
        # What it says may be a signed URL.
        raise InvalidContent(f"{host}: invalid URL; check for a proxy in between") from error
    except (exceptions.HTTPError, OSError) as error:
        raise Interrupted(f"{host}: connection lost: {error}; try again later") from error
