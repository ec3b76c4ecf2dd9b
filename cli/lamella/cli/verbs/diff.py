"""`lamella diff`: compare two environments, and count the bytes to move."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.environment import add_no_local_to
from lamella.cli.output import Column, result, result_json, table
from lamella.cli.settings import (
    COMPRESSION,
    IGNORE,
    IMAGE_PREFIX,
    INCLUDE,
    LOCAL,
    PLATFORM,
    TRUST,
    add_settings,
    platform_of,
    trust_of,
)
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import ComparedEnvironment, Difference

SETTINGS = (LOCAL, INCLUDE, IGNORE, PLATFORM, IMAGE_PREFIX, COMPRESSION, *TRUST)
_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("before", metavar="BEFORE", help="reference, or folder of an environment")
    parser.add_argument("after", metavar="AFTER", help="reference, or folder of an environment")
    add_no_local_to(parser)
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Compare. The exit code is 0 whether they differ or not; scripts use --json."""
    from lamella.builder import ScanOptions, diff
    from lamella.cli.progress import shown

    options = ScanOptions(
        local=arguments.local or None,
        working_directory=arguments.local is None,
        include=tuple(arguments.include),
        ignore=tuple(arguments.ignore),
        image_prefix=arguments.image_prefix,
    )
    with shown(quiet=arguments.quiet) as progress:
        difference = diff(
            arguments.before,
            arguments.after,
            options,
            compression=arguments.compression,
            platform=platform_of(arguments),
            trust=trust_of(arguments),
            progress=progress,
        )
    if arguments.json:
        result_json(
            {
                "before": _side(difference.sides[0]),
                "after": _side(difference.sides[1]),
                "added": [asdict(item) for item in difference.added],
                "removed": [asdict(item) for item in difference.removed],
                "changed": [{"before": asdict(before), "after": asdict(after)} for before, after in difference.changed],
                "same": difference.same,
                "bytes": difference.moves,
            }
        )
    else:
        _show(difference, on_disk=os.path.isdir(arguments.after))
    return 0


def _side(side: ComparedEnvironment) -> dict[str, str]:
    name = "reference" if side.is_published else "prefix"
    return {name: side.name, "python": side.python, "platform": side.platform}


def _show(difference: Difference, *, on_disk: bool) -> None:
    for sign, side in zip("-+", difference.sides, strict=True):
        result(f"{sign} {side.name} (Python {side.python} on {side.platform})")
    result("")
    rows = [("added", item.name, "", item.version, size(item.size)) for item in difference.added]
    rows += [("removed", item.name, item.version, "", "") for item in difference.removed]
    rows += [
        ("changed", after.name, before.version, after.version, size(after.size)) for before, after in difference.changed
    ]
    if rows:
        table(
            (
                Column("", styles=_STYLES),
                Column("Package", style="bold", shrinks=True),
                Column("Before"),
                Column("After"),
                Column("Size", "right"),
            ),
            rows,
        )
        result("")
    moving = (
        f"{size(difference.moves)} of files to build and upload" if on_disk else f"{size(difference.moves)} to move"
    )
    result(f"{counted(difference.same, 'package')} the same, {len(rows)} different; {moving}")
