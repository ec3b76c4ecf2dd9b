"""Connections of urllib3 that check each address, keep a URL as it is, and read no slow answer.

urllib3 has no setting for these, so its connections are subclassed: `_new_conn` connects, `request`
sends, `response_class` reads.
"""

from __future__ import annotations

import functools
import http.client
import socket
from typing import TYPE_CHECKING, Any, cast

from lamella.layers.registry import socks
from lamella.layers.registry.deadline import Lines

if TYPE_CHECKING:
    import io
    import ssl
    from collections.abc import Callable, Mapping

    import urllib3

    from lamella.layers.registry.proxies import Proxy

    Admit = Callable[[str, str], None]
    """Takes a host and one of its addresses; raises `Denied` if it must not be connected to."""

CONNECT_TIMEOUT = 15.0
"""Seconds for a connection; a host that is up answers in much less, also across an ocean."""
READ_TIMEOUT = 60.0
"""Seconds without a byte. Registries that copy a blob at the end of an upload are silent meanwhile.
"""

TARGET = ":path"
"""The header, illegal in HTTP/1.1 and never sent, that holds a request's target as it must be sent.

urllib3 rewrites a URL's escapes, and a signature covers them: `%2f` is not `%2F` to a storage
service.
"""

_CONNECTIONS = 32


class _Response(http.client.HTTPResponse):
    seconds: float

    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._lines = Lines(self.fp, self.seconds)
        self.fp = cast("io.BufferedReader", self._lines)

    def begin(self) -> None:
        super().begin()
        self._lines.head_ends()

    def _read_status(self) -> tuple[str, int, str]:
        # `begin` skips 100 alone; 102 and 103 (RFC 2518, RFC 8297) come before the answer as well.
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, 100 if 102 <= status < 200 else status, reason


def manager(proxy: Proxy | None, context: ssl.SSLContext | None, window: float, admit: Admit) -> urllib3.PoolManager:
    """Return pools of connections, through `proxy` if there is one; `window` is `Patience`'s."""
    import urllib3

    options: dict[str, Any] = {
        "maxsize": _CONNECTIONS,
        "timeout": urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
    }
    if context:
        options["ssl_context"] = context
    made, tunnel = urllib3.PoolManager(**options), None
    if proxy and proxy.is_socks:
        tunnel = proxy
    elif proxy:
        login = urllib3.make_headers(proxy_basic_auth=proxy.login)
        made = urllib3.ProxyManager(proxy.url, proxy_headers=login, **options)
    # urllib3 hands options that it does not know on to the connections.
    pools = {
        scheme: functools.partial(pool, admit=admit, tunnel=tunnel) for scheme, pool in _pool_classes(window).items()
    }
    made.pool_classes_by_scheme = cast("dict[str, Any]", pools)
    return made


@functools.cache
def _pool_classes(window: float) -> dict[str, type[urllib3.HTTPConnectionPool]]:
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

    class Response(_Response):
        seconds = window

    class Plain(HTTPConnection):
        response_class = Response

        def __init__(self, *arguments: Any, admit: Admit, tunnel: Proxy | None, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._admit = admit
            self._socks = tunnel

        def _new_conn(self) -> socket.socket:
            if self._socks:
                return socks.connected(
                    self._socks, self.host.strip("[]"), self.port or self.default_port, _seconds(self)
                )
            try:
                return _connected(self, self._admit)
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(self, f"Connection to {self.host} timed out.") from error
            except OSError as error:
                raise NewConnectionError(self, f"Failed to establish a new connection: {error}") from error

        def request(
            self, method: str, url: str, body: Any = None, headers: Mapping[str, Any] | None = None, **options: Any
        ) -> None:
            sent = dict(headers or {})
            super().request(method, sent.pop(TARGET, url), body, sent, **options)

    class Secure(Plain, HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            # An administrator's skip_verify is a decision; urllib3 warns of it at every connection.
            self.is_verified = True

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


def _seconds(connection: Any) -> float | None:
    return cast("float | None", connection.timeout)


def _connected(connection: Any, admit: Admit) -> socket.socket:
    """Connect to the first address of the host that answers; every address must be admitted."""
    host = connection.host.strip("[]")
    try:
        found = socket.getaddrinfo(host, connection.port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"invalid host name: {error}") from error
    for *_, address in found:
        admit(host, str(address[0]))
    failure = OSError("the name has no address")
    for family, kind, protocol, _, address in found:
        made = None
        try:
            made = socket.socket(family, kind, protocol)
            for option in connection.socket_options or ():
                made.setsockopt(*option)
            made.settimeout(connection.timeout)
            made.connect(address)
        except OSError as error:
            failure = error
            if made:
                made.close()
        else:
            return made
    raise failure
