"""URLs from outside, such as a redirect's: untrusted, kept as they are, shown without secrets.

`urllib.parse` raises `ValueError` for some and gives nonsense for others; both are this package's
error here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit

from lamella.layers.errors import InvalidContent

_NAME = re.compile(r"[a-z0-9_~.-]+", re.ASCII)
_TWO_READINGS = re.compile(r"[\x00-\x1f\x7f\\]")
"""Characters that parsers read differently: the host that was checked must be the one connected to.
"""
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """One absolute URL; `host` in lower case, `port` None where the URL names none."""

    url: str
    scheme: str
    host: str
    port: int | None
    path: str

    @classmethod
    def parse(cls, url: str, whose: str) -> Address:
        """Parse `url`, which `whose` gave. Raises `InvalidContent` if it has no host."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host, port = "", None
        else:
            if (_NAME.fullmatch(host) or _is_ip(host)) and not _TWO_READINGS.search(url):
                return cls(url, parts.scheme, host, port, parts.path)
        raise InvalidContent(f"{whose}: invalid URL; check for a proxy in between")

    def joined(self, location: str, whose: str) -> Address:
        """Return the address of `location`, absolute or relative. Raises `InvalidContent`."""
        if "://" in location.partition("?")[0]:
            # urljoin leaves out an empty query, and a signature may cover its "?".
            return self.parse(location, whose)
        try:
            return self.parse(urljoin(self.url, location), whose)
        except ValueError:
            return self.parse("", whose)

    def with_scheme(self, scheme: str) -> Address:
        """Return this address with another scheme."""
        return replace(self, url=scheme + self.url[len(self.scheme) :], scheme=scheme)

    def at(self, target: str) -> str:
        """Return the URL of a target, a path with its query, on this server."""
        return f"{self.scheme}://{self.authority}{target}"

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """The server of a request to it: credentials are for this whole."""
        return self.scheme, self.host, self.port or _PORTS.get(self.scheme)

    @property
    def authority(self) -> str:
        """The host with its port, as people write it; without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    def target(self, *, absolute: bool) -> str:
        """Return the request's target as the URL spells it; `absolute`: the form for a proxy.

        A URL that a server gave is opaque: storage services sign its exact spelling (RFC 3986,
        6.2.2).
        """
        rest = re.sub(r"^[^:/?#]+://[^/?#]*", "", self.url).partition("#")[0]
        rest = rest if rest.startswith("/") else f"/{rest}"
        # Headers are read as Latin-1: this gives the bytes that the server sent.
        quoted = quote(rest.encode("latin-1", "replace"), safe=_VISIBLE)
        return f"{self.scheme}://{self.authority}{quoted}" if absolute else quoted

    @property
    def shown(self) -> str:
        """The URL for messages, without its secrets: the query of a signed one, and any user."""
        return f"{self.scheme}://{self.authority}{self.path}"[:200]


def is_loopback(host: str) -> bool:
    """Return whether `host`, with or without a port, names this machine."""
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    return False


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
