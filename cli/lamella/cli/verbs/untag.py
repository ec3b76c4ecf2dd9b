"""`lamella untag`: remove a tag from a registry or OCI layout folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json
from lamella.cli.settings import REGISTRY, add_settings, quoted, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = REGISTRY
MODES = (
    Mode("--manifest", flags_of("--other-tags --dry-run", SETTINGS)),
    Mode("", flags_of("--dry-run", SETTINGS)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "reference",
        metavar="REFERENCE",
        help="registry/repository:tag, or oci:FOLDER:tag; with @digest, only if the tag names that digest",
    )
    parser.add_argument(
        "--manifest",
        action="store_true",
        help="delete the manifest as well, for everybody who has its digest (default: the tag alone)",
    )
    parser.add_argument(
        "--other-tags",
        action="store_true",
        help="with --manifest: delete it even if other tags name it, and them with it",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be removed; change nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Remove the tag, and print what it named."""
    from lamella.layers import untag

    removed = untag(
        arguments.reference,
        manifest=arguments.manifest,
        other_tags=arguments.other_tags,
        dry_run=arguments.dry_run,
        trust=trust_of(arguments),
    )
    if arguments.json:
        result_json(
            {
                "reference": removed.reference,
                "dry_run": arguments.dry_run,
                "manifest_deleted": removed.deleted and not arguments.dry_run,
                "other_tags": list(removed.others),
            }
        )
        return 0
    result(removed.reference)
    what = "tag and manifest" if removed.deleted else "tag"
    also = f"; also {', '.join(removed.others)}" if removed.others else ""
    freed = "the registry's garbage collection frees the blobs"
    if removed.reference.startswith("oci:"):
        freed = f"lamella gc {quoted(removed.reference.rpartition('@')[0].rpartition(':')[0])} frees the blobs"
    remark(f"{'would remove' if arguments.dry_run else 'removed'} the {what}{also}; {freed}", quiet=arguments.quiet)
    return 0
