"""containerd's `hosts.toml`: how to reach a registry, and the mirrors to pull from before it.

A folder (by default /etc/containerd/certs.d) holds one folder for each registry, and `_default`;
the first that exists counts. Without `hosts.toml` it holds certificates as Docker's `certs.d` does.
Pull-through caches, and Dragonfly's and Spegel's local endpoints, are configured there. Source:
containerd, docs/hosts.md and core/remotes/docker/config/hosts.go.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass, replace
from typing import Any

from lamella.layers.errors import LayersError
from lamella.layers.registry.tls import certificates_in
from lamella.layers.registry.url import Address

DEFAULT_FOLDER = "/etc/containerd/certs.d"

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: [\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Host:
    """One server of a registry's content: the registry itself, or a mirror, which is only read."""

    base: str
    """The URL above all requests: it ends in /v2, unless the file overrides the whole path."""
    resolves: bool = True
    """Resolve tags there too; if not, read digests only."""
    authorities: tuple[str, ...] = ()
    clients: tuple[tuple[str, str], ...] = ()
    """Client certificates with their keys."""
    verify: bool = True
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts of one registry: itself, if a file describes it, and its mirrors in order."""

    own: Host | None = None
    mirrors: tuple[Host, ...] = ()


def hosts_of(registry: str, hosts_dir: str | None = None) -> Hosts:
    """Return the hosts of `registry` (as references write it) by the files in `hosts_dir`.

    Raises `LayersError` if a file can't be read or understood.
    """
    root = hosts_dir or DEFAULT_FOLDER
    names = (f"{registry.replace(':', '_')}_", registry) if ":" in registry else (registry,)
    for name in (*names, "_default"):
        folder = os.path.join(root, name)
        path = os.path.join(folder, "hosts.toml")
        try:
            with open(path, "rb") as file:
                content = file.read()
        except FileNotFoundError:
            if not os.path.isdir(folder):
                continue
            authorities, clients = certificates_in(folder)
            found = bool(authorities or clients)
            return Hosts(Host(_default_base(registry), authorities=authorities, clients=clients) if found else None)
        except NotADirectoryError:
            continue
        except OSError as error:
            raise LayersError(f"cannot read the mirrors in {path}: {error.strerror}") from error
        return _parsed(content, path, registry)
    return Hosts()


def _parsed(content: bytes, path: str, registry: str) -> Hosts:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    folder = os.path.dirname(path)
    try:
        document = toml.loads(content.decode())
        own, mirrors = None, []
        for url, table in document.get("host", {}).items():
            host = _host(url, table, folder)
            if _is_own(host, registry):
                own = own or host
            elif "pull" in table.get("capabilities", ("pull", "resolve")):
                mirrors.append(host)
        # The outermost keys describe `server`, which by default is the registry.
        server = _host(document.get("server") or _default_base(registry), document, folder)
        if not _is_own(server, registry):
            if "pull" in document.get("capabilities", ("pull", "resolve")):
                mirrors.append(server)
        elif own is None and ("server" in document or server != Host(server.base)):
            own = server
    except (ValueError, TypeError, AttributeError, LayersError):
        raise LayersError(f"{path}: not a valid containerd hosts.toml; correct it, or move it away") from None
    if own and registry == "docker.io":
        own = replace(own, base=_default_base(registry))
    return Hosts(own, tuple(mirrors))


def _default_base(registry: str) -> str:
    return f"https://{'registry-1.docker.io' if registry == 'docker.io' else registry}/v2"


def _is_own(host: Host, registry: str) -> bool:
    address = Address.parse(host.base, "hosts.toml")
    names = _DOCKER_HUB if registry == "docker.io" else (registry.lower(),)
    return address.authority in names and address.path == "/v2"


def _host(url: str, table: dict[str, Any], folder: str) -> Host:
    url = (url if "://" in url else f"https://{url}").rstrip("/")
    whole = table.get("override_path") or url.endswith("/v2")
    base = url if whole else f"{url}/v2"
    Address.parse(base, "hosts.toml")
    named = table.get("ca", ())
    return Host(
        base,
        "resolve" in table.get("capabilities", ("pull", "resolve")),
        tuple(os.path.join(folder, name) for name in ([named] if isinstance(named, str) else named)),
        tuple(_client(entry, folder) for entry in _clients(table.get("client", ()))),
        not table.get("skip_verify", False),
        tuple(_header(name, value) for name, value in table.get("header", {}).items()),
    )


def _clients(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _client(entry: Any, folder: str) -> tuple[str, str]:
    # A name alone is a file with both; a pair may leave the key empty for the same.
    certificate, key = (entry, "") if isinstance(entry, str) else entry
    return os.path.join(folder, certificate), os.path.join(folder, key or certificate)


def _header(name: str, value: str | list[str]) -> tuple[str, str]:
    # Several values are one header with commas (RFC 9110, 5.3).
    text = value if isinstance(value, str) else ", ".join(value)
    if not _HEADER.fullmatch(f"{name}: {text}"):
        raise ValueError(name)
    return name, text
