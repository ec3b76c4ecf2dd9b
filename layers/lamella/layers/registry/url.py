"""URLs that others give, such as where a registry redirects to: read as untrusted, and shown without their secrets.

`urllib.parse` raises `ValueError` for some and gives nonsense for others; here both are this package's error.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from lamella.layers.errors import InvalidContent

_NAME = re.compile(r"[a-z0-9_~.-]+", re.ASCII)
_TWO_READINGS = re.compile(r"[\x00-\x1f\x7f\\]")
"""What parsers read in more than one way: a host that was compared must be the one that is connected to."""
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
        """`url`, which `whose` gave; `InvalidContent` where it is none with a host."""
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
        """The address that `location`, absolute or relative, is from here."""
        try:
            return self.parse(urljoin(self.url, location), whose)
        except ValueError:
            return self.parse("", whose)

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """Whom a request to it reaches: credentials are for this whole."""
        return self.scheme, self.host, self.port or _PORTS.get(self.scheme)

    @property
    def authority(self) -> str:
        """The host with its port, as people write it; never a user or password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port is None else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """For messages: signed URLs keep their secret in the query, careless ones before the host."""
        return f"{self.scheme}://{self.authority}{self.path}"[:200]


def is_loopback(host: str) -> bool:
    """Whether `host`, with or without a port, is this machine by name or address."""
    with contextlib.suppress(ValueError):
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    return False


def _is_ip(host: str) -> bool:
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
