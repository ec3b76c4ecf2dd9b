"""Where else to pull from: the mirrors that containerd's `hosts.toml` names for a registry, tried in its order.

A folder (by default /etc/containerd/certs.d) holds one folder for each registry, and `_default`. A pull-through cache, and Dragonfly's and Spegel's local endpoints, are configured so. Source: containerd, docs/hosts.md.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from dataclasses import dataclass
from typing import Any

from lamella.layers.errors import LayersError
from lamella.layers.registry.url import Address

DEFAULT_FOLDER = "/etc/containerd/certs.d"

_DOCKER_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+: [\t\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Mirror:
    """One host that serves what another registry has, for pulls only."""

    base: str
    """The URL that requests are below: it ends in /v2, unless the file says that its path is the whole one."""
    resolves: bool = True
    """Whether it may say what a tag names; else it is asked by digest only."""
    authorities: tuple[str, ...] = ()
    verify: bool = True
    headers: tuple[tuple[str, str], ...] = ()


def mirrors_of(registry: str, hosts_dir: str | None = None) -> tuple[Mirror, ...]:
    """The mirrors of `registry` (as references write it, such as docker.io) in `hosts_dir`, first choice first."""
    root = hosts_dir or DEFAULT_FOLDER
    for name in (registry, f"{registry.replace(':', '_')}_", "_default"):
        path = os.path.join(root, name, "hosts.toml")
        try:
            with open(path, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LayersError(f"cannot read the mirrors in {path}: {error.strerror}") from error
        return _parsed(content, path, registry)
    return ()


def _parsed(content: bytes, path: str, registry: str) -> tuple[Mirror, ...]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        document = toml.loads(content.decode())
        hosts = [*document.get("host", {}).items()]
        # What stands in the registry's own place comes behind the others, and is described by the file's outermost keys.
        if server := document.get("server"):
            hosts.append((server, document))
        found = [
            _mirror(url, host, os.path.dirname(path))
            for url, host in hosts
            if "pull" in host.get("capabilities", ("pull", "resolve"))
        ]
    except (ValueError, TypeError, AttributeError, LayersError):
        raise LayersError(f"{path}: not a valid containerd hosts.toml; correct it, or move it away") from None
    # The registry itself is asked in any case, with its own credentials, and is patient.
    names = _DOCKER_HUB if registry == "docker.io" else (registry,)
    return tuple(mirror for mirror in found if mirror.base not in {f"https://{name}/v2" for name in names})


def _mirror(url: str, host: dict[str, Any], folder: str) -> Mirror:
    url = (url if "://" in url else f"https://{url}").rstrip("/")
    whole = host.get("override_path") or url.endswith("/v2")
    base = url if whole else f"{url}/v2"
    Address.parse(base, "hosts.toml")
    named = host.get("ca", ())
    return Mirror(
        base,
        "resolve" in host.get("capabilities", ("pull", "resolve")),
        tuple(os.path.join(folder, name) for name in ([named] if isinstance(named, str) else named)),
        not host.get("skip_verify", False),
        tuple(_header(name, value) for name, value in host.get("header", {}).items()),
    )


def _header(name: str, value: str | list[str]) -> tuple[str, str]:
    # Several values are one header with commas (RFC 9110, 5.3).
    text = value if isinstance(value, str) else ", ".join(value)
    if not _HEADER.fullmatch(f"{name}: {text}"):
        raise ValueError(name)
    return name, text
