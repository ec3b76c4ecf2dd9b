"""Where else to pull from: the mirrors that containerd's `hosts.toml` names for a registry, tried in its order.

`LAMELLA_HOSTS_DIR` (by default /etc/containerd/certs.d) holds a folder for each registry, and `_default`. A pull-through
cache, and Dragonfly's and Spegel's local endpoints, are configured so. Source: containerd, docs/hosts.md.
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from lamella.layers.errors import LayersError

DEFAULT_FOLDER = "/etc/containerd/certs.d"


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


def mirrors_of(registry: str) -> tuple[Mirror, ...]:
    """The mirrors of `registry` (as references write it, such as docker.io), first choice first."""
    root = os.environ.get("LAMELLA_HOSTS_DIR") or DEFAULT_FOLDER
    for name in (registry, f"{registry.replace(':', '_')}_", "_default"):
        path = os.path.join(root, name, "hosts.toml")
        try:
            with open(path, "rb") as file:
                content = file.read()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LayersError(f"can't read the mirrors in {path}: {error.strerror}") from error
        return _parsed(content, path)
    return ()


def _parsed(content: bytes, path: str) -> tuple[Mirror, ...]:
    toml = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        hosts = toml.loads(content.decode()).get("host", {})
        return tuple(
            _mirror(url, host, os.path.dirname(path))
            for url, host in hosts.items()
            if "pull" in host.get("capabilities", ("pull", "resolve"))
        )
    except (ValueError, TypeError, AttributeError):
        raise LayersError(f"{path} is no hosts.toml as containerd's: correct it, or move it away") from None


def _mirror(url: str, host: dict[str, Any], folder: str) -> Mirror:
    url = (url if "://" in url else f"https://{url}").rstrip("/")
    whole = host.get("override_path") or url.endswith("/v2")
    named = host.get("ca", ())
    return Mirror(
        url if whole else f"{url}/v2",
        "resolve" in host.get("capabilities", ("pull", "resolve")),
        tuple(os.path.join(folder, name) for name in ([named] if isinstance(named, str) else named)),
        not host.get("skip_verify", False),
        tuple((name, value) for name, value in host.get("header", {}).items() if isinstance(value, str)),
    )
