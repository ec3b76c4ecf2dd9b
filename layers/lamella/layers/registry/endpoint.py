"""The address of a registry or mirror, and a client of it with the right certificates and credentials."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from lamella.layers.registry import credentials, tls
from lamella.layers.registry.auth import Tokens
from lamella.layers.registry.client import Client
from lamella.layers.registry.hosts import Host, Hosts, hosts_of
from lamella.layers.registry.remembered import Notes, Remembered
from lamella.layers.registry.retry import Patience
from lamella.layers.registry.url import Address, is_loopback
from lamella.layers.settings.trust import Trust

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from lamella.layers.registry.client import Signer


def endpoint(registry: str, trust: Trust = Trust()) -> str:
    """Return the base URL of a registry's API: plain HTTP only if `trust` is insecure."""
    host = "registry-1.docker.io" if registry == "docker.io" else registry
    return f"{'http' if trust.insecure else 'https'}://{host}/v2"


def client_of(
    registry: str,
    find: Callable[[], credentials.Credentials | None],
    *,
    trust: Trust = Trust(),
    patience: Patience = Patience(),
    hosts: Hosts | None = None,
    notes: Notes | None = None,
) -> Client:
    """Return a client of the registry itself; `find` is called when it requires credentials.

    `hosts`: those of `hosts.toml`, if they were read before. `notes`: facts about the registry that
    earlier processes learned.
    """
    own = (hosts or hosts_of(registry, trust.hosts_dir)).own
    # Certificates for it mean that it speaks TLS.
    unknown = own is None and not trust.insecure and not tls.known(registry)
    base = endpoint(registry, trust) if own is None or trust.insecure else own.base

    def signer(client: Client) -> Signer:
        return Tokens(client, registry, find, Remembered(notes, lambda: client.address.url))

    plain = unknown and is_loopback(registry)
    return _client(own or Host(base), base, registry, signer, trust=trust, patience=patience, plain=plain)


def mirror_client(mirror: Host, *, trust: Trust, patience: Patience) -> Client:
    """Return a client of a mirror. It is another host: it gets its own credentials, never the registry's."""
    name = Address.parse(mirror.base, mirror.base).authority
    find = partial(credentials.find, name)

    def signer(client: Client) -> Signer:
        return Tokens(client, name, find)

    return _client(mirror, mirror.base, name, signer, trust=trust, patience=patience)


def _client(
    host: Host,
    base: str,
    name: str,
    signer: Callable[[Client], Signer],
    *,
    trust: Trust,
    patience: Patience,
    plain: bool = False,
) -> Client:
    address = Address.parse(base, base)

    def settings(authority: str) -> ssl.SSLContext:
        authorities = (*trust.authorities, *host.authorities)
        if authority == address.authority:
            return tls.context(name, authorities, clients=host.clients, verify=host.verify)
        # A host that an answer named: it is verified, and sees no client certificate.
        return tls.context(authority, (*authorities, *tls.authorities_of(name)))

    return Client(
        base,
        signer=signer,
        tls=settings,
        headers=dict(host.headers),
        patience=patience,
        plain=plain,
    )
