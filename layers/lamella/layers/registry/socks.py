"""Connections through a SOCKS5 proxy, which resolves the name itself. Source: RFC 1928, RFC 1929."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lamella.layers.errors import Denied
from lamella.layers.registry.failures import proxy_refusal
from lamella.layers.registry.retry import Refused

if TYPE_CHECKING:
    from lamella.layers.registry.proxies import Proxy

_NO_LOGIN, _LOGIN = 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_NOT_ALLOWED = 2
_FAILURES = {3: "network unreachable", 4: "host unreachable", 5: "connection refused", 6: "timed out"}


def connected(proxy: Proxy, host: str, port: int, timeout: float | None) -> socket.socket:
    """Return a socket that is connected to `host` through the proxy. Raises `Refused`, `Denied`."""
    parts = urlsplit(proxy.url)
    try:
        made = socket.create_connection((parts.hostname or "", parts.port or 0), timeout)
    except OSError as error:
        raise _failure(proxy, host, str(error)) from error
    try:
        _greet(made, proxy, host)
        _ask(made, proxy, host, port)
    except OSError as error:
        made.close()
        raise _failure(proxy, host, str(error)) from error
    except BaseException:
        made.close()
        raise
    return made


def _greet(stream: socket.socket, proxy: Proxy, host: str) -> None:
    methods = bytes([_NO_LOGIN, _LOGIN] if proxy.login else [_NO_LOGIN])
    stream.sendall(bytes([5, len(methods)]) + methods)
    version, method = _exactly(stream, 2)
    if version != 5:
        raise _failure(proxy, host, "not a SOCKS5 proxy")
    if method == _LOGIN and proxy.login:
        user, _, password = proxy.login.partition(":")
        stream.sendall(b"\x01" + _counted(user) + _counted(password))
        if _exactly(stream, 2)[1] != 0:
            raise Denied(f"proxy {proxy.authority}: refuses the login; correct USER:PASSWORD@ in HTTPS_PROXY")
    elif method != _NO_LOGIN:
        raise Denied(f"proxy {proxy.authority}: requires a login; write USER:PASSWORD@ before its host in HTTPS_PROXY")


def _ask(stream: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    stream.sendall(b"\x05\x01\x00" + _address(host) + port.to_bytes(2, "big"))
    _, code, _, kind = _exactly(stream, 4)
    if code == _NOT_ALLOWED:
        raise proxy_refusal(proxy.authority, host, "not allowed by its rules")
    if code != 0:
        raise _failure(proxy, host, _FAILURES.get(code, f"code {code}"))
    # The address that the proxy connects from, which nothing here needs.
    _exactly(stream, {_IPV4: 4, _IPV6: 16}.get(kind) or _exactly(stream, 1)[0])
    _exactly(stream, 2)


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return bytes([_NAME]) + _counted(host)
    return bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed


def _counted(text: str) -> bytes:
    content = text.encode()
    if len(content) > 255:
        raise OSError("a name, user or password has more than 255 bytes")
    return bytes([len(content)]) + content


def _exactly(stream: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = stream.recv(size - len(content))
        if not part:
            raise OSError("the proxy closed the connection")
        content += part
    return content


def _failure(proxy: Proxy, host: str, reason: str) -> Refused:
    return Refused(
        f"{host}: cannot connect through the proxy {proxy.authority}: {reason}; check HTTPS_PROXY and NO_PROXY"
    )
