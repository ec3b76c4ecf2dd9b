"""The layer key: names a layer's content before anything is compiled, packed or compressed."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.content.entry import Entry

FORMAT = 3
"""Version of docs/reference/layer-format.md. Any change of a byte that a layer may have needs the next one."""


def layer_key(entries: Iterable[Entry], *, image_prefix: str, magic: str, compression: str) -> str:
    """Return 64 hex digits over everything that decides a layer's bytes.

    `magic` is the byte code's magic number if the layer has byte code, else empty: a package without
    modules is one layer for all Pythons. Not included: the interpreter's patch version, the platform,
    and the installation's path.
    """
    content = {
        "format": FORMAT,
        "prefix": image_prefix,
        "magic": magic,
        "compression": compression,
        "entries": [[entry.path, entry.mode, entry.digest, entry.target] for entry in entries],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def bundle_key(members: Iterable[str]) -> str:
    """Return 64 hex digits for the bundle of the layers with these keys."""
    content = {"format": FORMAT, "bundle": sorted(members)}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
