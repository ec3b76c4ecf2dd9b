"""HTTP as registries use it: kept connections, signed requests, and no secret for another host.

A `Client` talks to one endpoint. It follows redirects without its signature, as far as the address
policy allows, and raises every failure as one of this package's errors. Source: distribution-spec
v1.1, RFC 9110.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lamella.layers import logs
from lamella.layers.errors import Denied, InvalidContent, Unreachable
from lamella.layers.registry.address_policy import AddressPolicy
from lamella.layers.registry.connection import TARGET, manager
from lamella.layers.registry.failures import NotTls, translated
from lamella.layers.registry.proxies import proxy_for
from lamella.layers.registry.response import Response, displayed, failure_of
from lamella.layers.registry.retry import Interrupted, Patience
from lamella.layers.registry.url import Address
from lamella.layers.text import size

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    import urllib3

    from lamella.layers.errors import LayersError
    from lamella.layers.oci.storage import Reader
    from lamella.layers.registry.connection import Admit
    from lamella.layers.registry.proxies import Proxy

_BLOCK = 64 << 10
"""Bytes of one send: it must end within the connection's timeout, beside 15 other uploads."""
_REDIRECTS = 5
_HOSTS = 16
"""Hosts with kept connections: a registry redirects to few."""
_ANYWHERE = frozenset({"Accept", "Range", "If-None-Match", "If-Modified-Since"})
"""Headers that go to the server of a redirect."""


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request. `open` gives the same bytes at every call: requests are retried."""

    open: Callable[[], contextlib.AbstractContextManager[Reader]]
    size: int


class Signer(Protocol):
    """Signs requests, from any number of threads; see `lamella.layers.registry.auth.Tokens`."""

    def signature(self, scopes: Collection[str]) -> str:
        """Return the Authorization header for `scopes`; empty if none was required so far."""

    def answer(self, headers: Iterable[str], scopes: Collection[str], refused: str, what: str) -> str:
        """Return the header that a 401 with these `headers` requires instead of the `refused` one.

        Raises `Denied` if there is none.
        """

    def explained(self, error: LayersError) -> LayersError:
        """Return the error for a refusal with what the signer knows about it."""


class Client:
    """Requests to one endpoint, such as https://ghcr.io/v2, from any number of threads.

    `tls` returns the settings for a host with its port: the endpoint's, or one that an answer
    named. `plain`: use plain HTTP instead of HTTPS if the server refuses TLS.
    """

    def __init__(
        self,
        base: str,
        *,
        signer: Callable[[Client], Signer] | None = None,
        tls: Callable[[str], ssl.SSLContext] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: Patience = Patience(),
        plain: bool = False,
    ) -> None:
        self.patience = patience
        self._given = Address.parse(base, base)
        self._chosen = None if plain else self._given
        self._plain = plain
        self.host = self._given.authority
        self.path = self._given.path
        self._signer = signer(self) if signer else None
        self._tls = tls
        self._headers = dict(headers or {})
        self._policy = AddressPolicy(self.host)
        self._choosing = threading.Lock()
        self._pools: dict[tuple[str, str, Proxy | None, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    @property
    def address(self) -> Address:
        """The endpoint, with the scheme that its server speaks. Raises `Unreachable`."""
        with self._choosing:
            if self._chosen is None:
                from lamella.layers.registry.scheme import spoken

                self._chosen = self._given.with_scheme(spoken(self._given))
            return self._chosen

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
        """Make one signed attempt, signed anew if its signature was refused.

        `target` is below the base (it begins with a slash) or a URL. A status outside `expect` is
        raised as the error that it stands for, with `what` as its subject.
        """
        try:
            return self._request(method, target, what, expect, scopes=scopes, headers=headers or {}, body=body)
        except Unreachable as error:
            if not self._plain:
                raise
            from lamella.layers.registry.scheme import forget

            # Another server may be at this port by now, with the other scheme.
            forget(self._given)
            with self._choosing:
                self._chosen = None
            if isinstance(error, NotTls):
                raise Interrupted(str(error)) from error
            raise

    def _request(
        self,
        method: str,
        target: str,
        what: str,
        expect: Collection[int],
        *,
        scopes: Collection[str],
        headers: Mapping[str, str],
        body: Body | None,
    ) -> Response:
        own = self.address
        url = own.url + target if target.startswith("/") else target
        address = Address.parse(url, self.host)
        if own.scheme == "https" != address.scheme:
            raise Denied(f"{self.host} continues at {address.shown}, without HTTPS; set X-Forwarded-Proto in its proxy")
        # They may hold a secret, as a signature does.
        sent = (self._headers if self._is_own(address) else {}) | dict(headers)
        signer = self._signer if self._is_own(address) else None
        signature = signer.signature(scopes) if signer else ""
        response = self.send(method, url, _signed(sent, signature), body)
        # The challenge of a redirect's host is not answered: that host must not get credentials.
        if response.status == 401 and signer and self._is_own(response.address):
            challenges = response.headers("WWW-Authenticate")
            response.close()
            signature = signer.answer(challenges, scopes, signature, what)
            response = self.send(method, url, _signed(sent, signature), body)
        if response.status not in expect:
            error = failure_of(response, what, response.host if self._is_own(response.address) else "")
            raise signer.explained(error) if signer else error
        return response

    def send(self, method: str, url: str, headers: Mapping[str, str], body: Body | None = None) -> Response:
        """Make one attempt with exactly these headers, and follow redirects with few of them."""
        here = Address.parse(url, self.host)
        for _ in range(_REDIRECTS + 1):
            response = self._send(method, here, headers, body)
            location = response.header("Location")
            if response.status not in {301, 302, 303, 307, 308} or not location:
                return response
            response.close()
            if method not in {"GET", "HEAD"} and response.status < 307:
                raise InvalidContent(f"{self.host}: redirect of {method} refused, its body would be lost")
            goal = here.joined(location, here.authority)
            if goal.scheme not in {"https", here.scheme}:
                raise Denied(f"{self.host}: redirect to {goal.shown} refused, without HTTPS")
            if goal.origin != here.origin:
                if body:
                    # The body may be an identity token.
                    raise Denied(f"{self.host}: redirect of an upload to {goal.shown} refused")
                headers = {name: value for name, value in headers.items() if name in _ANYWHERE}
            here = goal
        raise InvalidContent(f"too many redirects from {self.host}; last: {here.shown}")

    def close(self) -> None:
        """Close every connection. Idempotent."""
        with self._lock:
            for pool in self._pools.values():
                pool.clear()
            self._pools.clear()

    def _is_own(self, address: Address) -> bool:
        return address.origin == self.address.origin

    def _send(self, method: str, address: Address, headers: Mapping[str, str], body: Body | None) -> Response:
        proxy = proxy_for(address, os.environ)
        # In the clear, a proxy gets the whole URL, and may answer itself.
        forwarder = proxy.authority if proxy and not proxy.is_socks and address.scheme == "http" else ""
        # identity: a digest is of the bytes as they are, not of a proxy's compression.
        sent = {"User-Agent": "lamella", "Accept-Encoding": "identity", **headers}
        sent[TARGET] = address.target(absolute=bool(forwarder))
        with contextlib.ExitStack() as stack:
            chunks: Iterator[bytes] | None = None
            if body:
                sent["Content-Length"] = str(body.size)
                chunks = _chunks(stack.enter_context(body.open()))
            elif method in {"POST", "PUT", "PATCH"}:
                sent["Content-Length"] = "0"
            pool = self._pool(address, proxy)
            began = time.monotonic()
            with translated(displayed(address), proxy.authority if proxy else ""):
                raw = pool.urlopen(
                    method,
                    f"{address.scheme}://{address.authority}/",
                    body=chunks,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    preload_content=False,
                )
        response = Response(raw, method, address, self.patience.window, forwarder)
        _log(response, body.size if body else 0, time.monotonic() - began)
        return response

    def _pool(self, address: Address, proxy: Proxy | None) -> urllib3.PoolManager:
        own = self._is_own(address)
        admit: Admit = self._policy.admit_own if own else self._policy.admit_named
        if proxy:
            self._policy.admit_proxied(address.host, own=own)
            admit = _admit_any
        key = (address.scheme, address.authority, proxy, own)
        with self._lock:
            if key not in self._pools:
                if len(self._pools) >= _HOSTS:
                    self._pools.pop(next(iter(self._pools))).clear()
                context = self._tls(address.authority) if self._tls and address.scheme == "https" else None
                self._pools[key] = manager(proxy, context, self.patience.window, admit)
            return self._pools[key]


def _signed(headers: Mapping[str, str], signature: str) -> dict[str, str]:
    return {**headers, "Authorization": signature} if signature else dict(headers)


def _chunks(stream: Reader) -> Iterator[bytes]:
    while chunk := stream.read(_BLOCK):
        yield chunk


def _admit_any(_host: str, _address: str) -> None:
    """Admit the addresses of a proxy, which the user named."""


def _log(response: Response, sent: int, took: float) -> None:
    """Record a request, without headers and query: they hold tokens and signatures."""
    length = response.header("Content-Length")
    received = int(length) if length.isdecimal() and len(length) < 20 and response.method != "HEAD" else 0
    moved = f", {size(sent)} sent" if sent else f", {size(received)}" if received else ""
    url, milliseconds = response.address.shown, round(took * 1000)
    logs.record(
        "lamella.layers.registry",
        f"{response.method} {url}: {response.status}{moved}, {milliseconds} ms",
        method=response.method,
        url=url,
        status=response.status,
        sent=sent,
        received=received,
        milliseconds=milliseconds,
    )
