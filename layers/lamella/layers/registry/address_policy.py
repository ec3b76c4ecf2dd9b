"""Which addresses a client may connect to, decided on each address after names are resolved.

A registry's answers name other hosts: redirects, token servers, where an upload goes on. A hostile
registry could so reach services that trust this machine for its place in a network. Two rules:

- Link-local and metadata addresses, where cloud machines get credentials, are always refused.
- A host named by an answer is at most as close to this machine as the registry: a public registry
  leads to public addresses, one in a private network also to private ones, one on loopback to any.
"""

from __future__ import annotations

import enum
import ipaddress
import socket
import threading
from typing import TYPE_CHECKING

from lamella.layers.errors import Denied

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address


class Closeness(enum.IntEnum):
    """How close to this machine an address is; the last is refused for every host."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    METADATA = 3


_SHOWN = {
    Closeness.PRIVATE: "a private address",
    Closeness.LOOPBACK: "a loopback address",
    Closeness.METADATA: "a link-local or metadata address",
}

# Link-local addresses hold the metadata services of AWS, Azure, Google, Oracle and others; the rest
# are, in this order: Alibaba, Azure's wire server, Oracle's older address; AWS, Google, Oracle,
# Scaleway over IPv6.
_METADATA = (
    "169.254.0.0/16", "fe80::/10", "100.100.100.200/32", "168.63.129.16/32", "192.0.0.192/32",
    "fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128",
)  # fmt: skip
# 0.0.0.0 and :: connect to this machine (Linux).
_LOOPBACK = ("127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128")
# Not `is_private`: that has 198.18.0.0/15, which resolvers of VPN clients give for every name.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fec0::/10")
# IPv4 inside IPv6: mapped, compatible, and what NAT64 translates (RFC 6052, RFC 8215).
_EMBEDDING = ("::ffff:0:0/96", "::/96", "64:ff9b::/96", "64:ff9b:1::/48")

# A proxy resolves names itself, so these are refused by name.
_METADATA_NAMES = frozenset(
    {"metadata", "metadata.goog", "metadata.google.internal", "instance-data", "instance-data.ec2.internal"}
)


def closeness(address: str) -> Closeness:
    """Return the closeness of an IP address, with or without a zone.

    An IPv6 address that holds an IPv4 address has the closeness of that one.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    for kind, networks in (
        (Closeness.METADATA, _METADATA),
        (Closeness.LOOPBACK, _LOOPBACK),
        (Closeness.PRIVATE, _PRIVATE),
    ):
        if _within(parsed, networks):
            return kind
    embedded = _embedded(parsed)
    return closeness(str(embedded)) if embedded else Closeness.PUBLIC


class AddressPolicy:
    """The policy of one client, used from any number of threads.

    `name`: the registry, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._own: Closeness | None = None

    def admit_own(self, host: str, address: str) -> None:
        """Admit an address of the registry's own host. Raises `Denied`."""
        kind = closeness(address)
        if kind == Closeness.METADATA:
            raise Denied(f"{host}: {address} is {_SHOWN[kind]}, never a registry; check the registry's name")
        with self._lock:
            # The most public one counts: a name may change its address between two connections.
            self._own = kind if self._own is None else min(self._own, kind)

    def admit_named(self, host: str, address: str) -> None:
        """Admit an address of a host that an answer of the registry named. Raises `Denied`."""
        kind = closeness(address)
        with self._lock:
            own = self._own or Closeness.PUBLIC
        if kind > own:
            raise self._refusal(host, f"{address} is {_SHOWN[kind]}")

    def admit_proxied(self, host: str, *, own: bool) -> None:
        """Admit a host that a proxy resolves, by its name or its address. Raises `Denied`."""
        if host.rstrip(".") in _METADATA_NAMES:
            raise self._refusal(host, "it serves credentials of cloud machines")
        if address := _literal(host):
            (self.admit_own if own else self.admit_named)(host, address)

    def _refusal(self, host: str, reason: str) -> Denied:
        return Denied(f"{self._name}: refused to continue at {host}: {reason}; report this to the registry's operator")


def _literal(host: str) -> str:
    """Return the address that `host` spells, or an empty string.

    Resolvers also read numbers: 0xa9fea9fe and 2852039166 are 169.254.169.254.
    """
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return ""


def _within(address: IPv4Address | IPv6Address, networks: tuple[str, ...]) -> bool:
    return any(address in ipaddress.ip_network(network) for network in networks)


def _embedded(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    if address.version == 4:
        return None
    if _within(address, _EMBEDDING):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)
