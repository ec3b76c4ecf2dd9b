"""The proxy for a request, by Go's rules: those of podman, skopeo, Docker and containerd.

The variables are HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in upper or lower case, upper first; an
empty one counts as unset. ALL_PROXY is not read. Source: golang.org/x/net/http/httpproxy.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from lamella.layers.errors import LayersError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.layers.registry.url import Address

_PORTS = {"http": 80, "https": 443}
_PROXY_PORTS = _PORTS | {"socks5": 1080, "socks5h": 1080}
_HOST_AND_PORT = re.compile(r"(?:\[([^\[\]]*)\]|([^:\[\]]*)):([^:]*)")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy's URL without its login, and `USER:PASSWORD`, or None if it has no login."""

    url: str
    login: str | None = None

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS5, not HTTP."""
        return self.url.startswith("socks5")

    @property
    def authority(self) -> str:
        """The proxy's host and port, for messages."""
        return urlsplit(self.url).netloc


def proxy_for(address: Address, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for `address`, or None. Raises `LayersError` for an unusable variable."""
    name = f"{address.scheme.upper()}_PROXY"
    value = _variable(environment, name)
    # A CGI program gets HTTP_PROXY from its client, by a header named Proxy.
    if not value or (name == "HTTP_PROXY" and environment.get("REQUEST_METHOD")):
        return None
    if not _uses_proxy(address, _variable(environment, "NO_PROXY")):
        return None
    return _parsed(name, value)


def _variable(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name) or environment.get(name.lower()) or ""


def _parsed(name: str, value: str) -> Proxy:
    # The value may hold a password: no message shows it.
    problem = LayersError(f"{name}: not the URL of an HTTP or SOCKS5 proxy; use http://HOST:PORT or socks5://HOST:PORT")
    with contextlib.suppress(ValueError):
        parts = urlsplit(value)
        if not parts.netloc and "://" not in value:
            value = f"http://{value}"
            parts = urlsplit(value)
        if parts.scheme in _PROXY_PORTS and parts.hostname and re.fullmatch(r"[\x21-\x7e]+", value):
            port = parts.port or _PROXY_PORTS[parts.scheme]
            host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
            return Proxy(f"{parts.scheme}://{host}:{port}", login)
    raise problem


def _uses_proxy(address: Address, no_proxy: str) -> bool:
    host, port = address.host, str(address.port or _PORTS[address.scheme])
    ip = _ip(host)
    if host == "localhost" or (ip and ip.is_loopback):
        return False
    return not any(_excludes(entry, host, ip, port) for entry in no_proxy.lower().split(","))


def _excludes(entry: str, host: str, ip: _Ip | None, port: str) -> bool:
    """Return whether an entry of NO_PROXY means this host.

    Entries: `10.0.0.0/8`, `*.corp.example`, `ghcr.io:443`, `*`.
    """
    entry = entry.strip()
    if entry == "*":
        return True
    if "/" in entry:
        with contextlib.suppress(ValueError):
            return ip is not None and ip in ipaddress.ip_network(entry, strict=False)
    found = _HOST_AND_PORT.fullmatch(entry)
    name, only_port = (found[1] or found[2] or "", found[3]) if found else (entry, "")
    if not name or (only_port and only_port != port):
        return False
    if named := _ip(name):
        return ip == named
    if ip:
        return False
    name = name.removeprefix("*") if name.startswith("*.") else name
    # `.corp.example` means names below it, `corp.example` itself as well.
    return host.endswith(name if name.startswith(".") else f".{name}") or host == name


_Ip = ipaddress.IPv4Address | ipaddress.IPv6Address


def _ip(text: str) -> _Ip | None:
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(text)
        # Go compares a mapped address as the IPv4 address that it is.
        return found.ipv4_mapped or found if isinstance(found, ipaddress.IPv6Address) else found
    return None
