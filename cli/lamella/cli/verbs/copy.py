"""`lamella copy`: copy an environment, with every platform, between registries and folders."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.output import remark, result, result_json
from lamella.cli.settings import TRUST, add_settings, trust_of
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    import argparse

SETTINGS = TRUST


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("source", metavar="SOURCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("destination", metavar="DESTINATION", help="registry/repository:tag, or oci:FOLDER:tag")
    parser.add_argument("--dry-run", action="store_true", help="show what would be copied; copy nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Copy, and print the destination pinned to its digest."""
    from lamella.cli.progress import shown
    from lamella.layers import copy

    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        copied = copy(
            arguments.source,
            arguments.destination,
            trust=trust_of(arguments),
            dry_run=arguments.dry_run,
            progress=progress,
        )
    took = time.monotonic() - began
    if arguments.json:
        result_json(asdict(copied) | {"dry_run": arguments.dry_run, "seconds": round(took, 3)})
        return 0
    result(copied.reference)
    if arguments.dry_run:
        remark(
            f"dry run: {counted(copied.sent, 'blob')} to upload, {size(copied.moved)}; {copied.mounted} to mount from "
            f"another repository, {copied.present} already there",
            quiet=arguments.quiet,
        )
        return 0
    remark(
        f"{counted(copied.sent, 'blob')} uploaded, {size(copied.moved)} in {seconds(took)}; {copied.mounted} mounted "
        f"from another repository, {copied.present} already there",
        quiet=arguments.quiet,
    )
    return 0
