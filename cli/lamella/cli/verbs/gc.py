"""`lamella gc`: free space in the store or the layer cache, least recently used first."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lamella.cli.output import remark, result_json
from lamella.cli.settings import CACHE, STORE, UsageError, add_settings, quoted
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE, CACHE)
_BYTES = {"": 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--keep", metavar="SIZE", help="free layers until at most this much is left, such as 20GB")
    parser.add_argument("--older-than", metavar="AGE", help="free layers unused for this long, such as 30d or 12h")
    parser.add_argument(
        "--layer-cache", action="store_true", help="free built layers in the cache instead of the store"
    )
    parser.add_argument("--all", action="store_true", help="free all layers that are not in use")
    parser.add_argument("--dry-run", action="store_true", help="show what would be freed; change nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Free space, and print the amount."""
    from lamella.layers import Store, gc

    if not (arguments.all or arguments.keep or arguments.older_than):
        raise UsageError("gc: no limit; use --older-than 30d, --keep 20GB or --all")
    keep_bytes, older_than = 0 if arguments.all else size_of(arguments.keep), age_of(arguments.older_than)
    if arguments.layer_cache:
        return _prune(arguments, keep_bytes, older_than)
    store = Store(arguments.store)
    freed = gc(store, keep_bytes=keep_bytes, older_than=older_than, dry_run=arguments.dry_run)
    if arguments.json:
        layers = [str(diff_id) for diff_id in freed.layers]
        result_json(
            {
                "store": store.path,
                "dry_run": arguments.dry_run,
                "freed": {"layers": layers, "bytes": freed.bytes},
                "in_use": list(freed.in_use),
            }
        )
    else:
        would = "would free" if arguments.dry_run else "freed"
        layers_text = counted(len(freed.layers), "layer")
        remark(f"{would} {size(freed.bytes)}, {layers_text} of {store.path}", quiet=arguments.quiet)
        if freed.in_use:
            remark(f"kept layers in use by {'; '.join(freed.in_use)}", quiet=arguments.quiet)
    return 0


def _prune(arguments: argparse.Namespace, keep_bytes: int | None, older_than: float | None) -> int:
    from lamella.builder import LayerCache, prune_cache

    cache = LayerCache(arguments.cache)
    freed = prune_cache(cache, keep_bytes=keep_bytes, older_than=older_than, dry_run=arguments.dry_run)
    if arguments.json:
        value = {"layers": freed.blobs, "bytes": freed.bytes}
        result_json({"cache": cache.path, "dry_run": arguments.dry_run, "freed": value})
    else:
        would = "would free" if arguments.dry_run else "freed"
        remark(
            f"{would} {size(freed.bytes)}, {counted(freed.blobs, 'built layer')} of {cache.path}", quiet=arguments.quiet
        )
    return 0


def size_of(text: str | None) -> int | None:
    """Return `20GB`, `1.5TB` or `512MiB` in bytes."""
    return None if text is None else int(_amount("--keep", text, _BYTES, "20GB"))


def age_of(text: str | None) -> float | None:
    """Return `30d`, `2w` or `12h` in seconds."""
    return None if text is None else _amount("--older-than", text, _SECONDS, "30d")


def _amount(flag: str, text: str, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text, re.ASCII)
    if not match or match[2] not in units:
        raise UsageError(
            f"{flag} {quoted(text)}: invalid; use a number and a unit ({', '.join(filter(None, units))}), such as {example}"
        )
    return float(match[1]) * units[match[2]]
