"""`lamella gc`: free space in the store, the layer cache or an OCI layout folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.named_folders import existing_cache, existing_store
from lamella.cli.output import remark, result_json
from lamella.cli.quantities import age_of, size_of
from lamella.cli.settings import CACHE, STORE, add_settings, quoted
from lamella.layers.text import counted, escaped, size

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE, CACHE)
MODES = (
    Mode("oci:FOLDER", flags_of("--older-than --all --yes --dry-run"), lambda arguments: bool(arguments.layout)),
    Mode("--layer-cache", flags_of("--keep --older-than --all --yes --dry-run --cache")),
    Mode("", flags_of("--keep --older-than --all --yes --dry-run --store")),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "layout",
        nargs="?",
        metavar="oci:FOLDER",
        help="free the blobs of this OCI layout folder that no tag leads to, instead of the store",
    )
    parser.add_argument("--keep", metavar="SIZE", help="free layers until at most this much is left, such as 20GB")
    parser.add_argument(
        "--older-than",
        metavar="AGE",
        help="free layers unused for this long, such as 30d or 12h; in an OCI layout folder, blobs written that long ago "
        "(default there: 1d)",
    )
    parser.add_argument(
        "--layer-cache", action="store_true", help="free built layers in the cache instead of the store"
    )
    parser.add_argument("--all", action="store_true", help="free all layers that are not in use, after a question")
    parser.add_argument("--yes", action="store_true", help="do not ask; required for --all without a terminal")
    parser.add_argument("--dry-run", action="store_true", help="show what would be freed; change nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Free space, and print the amount."""
    from lamella.layers import gc

    if arguments.all and (arguments.keep or arguments.older_than):
        flag = "--keep" if arguments.keep else "--older-than"
        raise UsageError(f"{flag}: has no effect with --all; leave one of them out")
    if arguments.layout:
        return _layout(arguments)
    if not (arguments.all or arguments.keep or arguments.older_than):
        raise UsageError("gc: no limit; use --older-than 30d, --keep 20GB or --all")
    keep_bytes, older_than = 0 if arguments.all else size_of(arguments.keep), age_of(arguments.older_than)
    if arguments.layer_cache:
        return _prune(arguments, keep_bytes, older_than)
    asks = _asks(arguments)
    store = existing_store(arguments)
    if asks:
        planned = gc(store, keep_bytes=keep_bytes, older_than=older_than, dry_run=True)
        if not _agreed(f"free {size(planned.bytes)}, {counted(len(planned.layers), 'layer')} of {store.path}?"):
            return 1
    freed = gc(store, keep_bytes=keep_bytes, older_than=older_than, dry_run=arguments.dry_run)
    if arguments.json:
        layers = [str(diff_id) for diff_id in freed.layers]
        result_json(
            {
                "store": store.path,
                "dry_run": arguments.dry_run,
                "freed": {"layers": len(layers), "bytes": freed.bytes},
                "diff_ids": layers,
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


def _layout(arguments: argparse.Namespace) -> int:
    from lamella.layers import Reference, gc_layout

    parsed = Reference.parse(arguments.layout)
    if not parsed.is_layout or parsed.digest or (parsed.tag and not _without_tag(arguments.layout, parsed.tag)):
        raise UsageError(f"gc {quoted(arguments.layout)}: not an OCI layout folder; write oci:FOLDER, without a tag")
    older_than = 0.0 if arguments.all else age_of(arguments.older_than)
    limit = {} if older_than is None else {"older_than": older_than}
    if _asks(arguments):
        planned = gc_layout(parsed.folder, **limit, dry_run=True)
        if not _agreed(f"free {size(planned.bytes)}, {counted(len(planned.digests), 'blob')} of {parsed.folder}?"):
            return 1
    freed = gc_layout(parsed.folder, **limit, dry_run=arguments.dry_run)
    if arguments.json:
        result_json(
            {
                "layout": parsed.folder,
                "dry_run": arguments.dry_run,
                "freed": {"blobs": len(freed.digests), "bytes": freed.bytes},
                "digests": [str(digest) for digest in freed.digests],
                "removed_tags": list(freed.tags),
                "recent": freed.recent,
            }
        )
        return 0
    would = "would free" if arguments.dry_run else "freed"
    remark(
        f"{would} {size(freed.bytes)}, {counted(len(freed.digests), 'blob')} of {parsed.folder}", quiet=arguments.quiet
    )
    if freed.recent:
        remark(
            f"kept {counted(freed.recent, 'blob')} without a tag that may belong to a running push; --older-than AGE "
            "sets the limit (default: 1d)",
            quiet=arguments.quiet,
        )
    return 0


def _without_tag(text: str, tag: str) -> bool:
    return tag == "latest" and not text.endswith(":latest")


def _prune(arguments: argparse.Namespace, keep_bytes: int | None, older_than: float | None) -> int:
    from lamella.builder import prune_cache

    asks = _asks(arguments)
    cache = existing_cache(arguments)
    if asks:
        planned = prune_cache(cache, keep_bytes=keep_bytes, older_than=older_than, dry_run=True)
        if not _agreed(f"free {size(planned.bytes)}, {counted(planned.blobs, 'built layer')} of {cache.path}?"):
            return 1
    freed = prune_cache(cache, keep_bytes=keep_bytes, older_than=older_than, dry_run=arguments.dry_run)
    if arguments.json:
        value = {"layers": freed.blobs, "bytes": freed.bytes}
        result_json({"cache": cache.path, "dry_run": arguments.dry_run, "freed": value, "recent": freed.recent})
    else:
        would = "would free" if arguments.dry_run else "freed"
        remark(
            f"{would} {size(freed.bytes)}, {counted(freed.blobs, 'built layer')} of {cache.path}", quiet=arguments.quiet
        )
        if freed.recent:
            remark(
                f"kept {counted(freed.recent, 'built layer')} used within the last hour: a running push may need them",
                quiet=arguments.quiet,
            )
    return 0


def _asks(arguments: argparse.Namespace) -> bool:
    """Whether to ask before everything is freed. A script has to state that it means it."""
    if not arguments.all or arguments.yes or arguments.dry_run:
        return False
    if not sys.stdin.isatty():
        raise UsageError("gc --all: frees every layer that is not in use; confirm with --yes")
    return True


def _agreed(question: str) -> bool:
    print(f"{escaped(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
