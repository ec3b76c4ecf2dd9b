"""`lamella diff`: compare two environments, and count the bytes to move."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.environment import add_no_local_to, check_folder
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import result, result_json, table
from lamella.cli.settings import (
    COMPRESSION,
    IGNORE,
    IMAGE_PREFIX,
    INCLUDE,
    LOCAL,
    PLATFORM,
    STORE,
    TRUST,
    add_settings,
    platform_of,
    trust_of,
)
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import ComparedEnvironment, ComparedPackage, Difference, PackageChanges
    from lamella.layers import Progress

_EVERY = flags_of("--no-local", (LOCAL, INCLUDE, IGNORE, PLATFORM, IMAGE_PREFIX, COMPRESSION, *TRUST))
MODES = (Mode("--files", _EVERY | {"--store"}), Mode("", _EVERY))
SETTINGS = (LOCAL, INCLUDE, IGNORE, PLATFORM, IMAGE_PREFIX, COMPRESSION, STORE, *TRUST)
SHOWN = 10
"""Files of a package shown unless it is named."""
_STYLES = {"added": "green", "removed": "red", "changed": "yellow"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("before", metavar="BEFORE", help="reference, or folder of an environment")
    parser.add_argument("after", metavar="AFTER", help="reference, or folder of an environment")
    add_no_local_to(parser)
    parser.add_argument(
        "--files",
        nargs="?",
        const="",
        metavar="PACKAGE",
        help="show which files made each layer change, or that of a package, and why; reads the layers that the store lacks",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Compare. The exit code is 0 whether they differ or not; scripts use --json."""
    from lamella.builder import ScanOptions, diff
    from lamella.cli.progress import shown

    for side in (arguments.before, arguments.after):
        check_folder("diff", side)
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
        changes = _changes(difference, arguments, progress)
    if arguments.json:
        result_json(
            {
                "before": _side(difference.sides[0]),
                "after": _side(difference.sides[1]),
                "added": [_item(item) for item in difference.added],
                "removed": [_item(item) for item in difference.removed],
                "changed": [{"before": _item(before), "after": _item(after)} for before, after in difference.changed],
                "same": difference.same,
                "bytes": difference.moves,
            }
            | ({} if changes is None else {"files": [asdict(each) | {"reasons": each.reasons} for each in changes]})
        )
    else:
        _show(difference, on_disk=os.path.isdir(arguments.after))
        for each in changes or ():
            _show_changes(each, everything=bool(arguments.files))
    return 0


def _changes(
    difference: Difference, arguments: argparse.Namespace, progress: Progress
) -> tuple[PackageChanges, ...] | None:
    from lamella.builder import file_changes
    from lamella.layers import Store

    if arguments.files is None:
        return None
    store = Store(arguments.store) if arguments.store else None
    return file_changes(difference, arguments.files, trust=trust_of(arguments), store=store, progress=progress)


def _show_changes(package: PackageChanges, *, everything: bool) -> None:
    versions = " -> ".join(dict.fromkeys(filter(None, (package.before, package.after))))
    result("")
    if not package.files:
        where = "at another image prefix" if package.otherwise == "prefix" else "in another format of layers"
        result(f"{f'{package.name} {versions}'.rstrip()}: the same files, {where}")
        return
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in package.reasons.items())
    result(f"{f'{package.name} {versions}'.rstrip()}: {counted(len(package.files), 'file')} ({reasons})")
    # The cause before its consequences: records and byte code follow content.
    ordered = sorted(package.files, key=lambda each: (each.reason == "record" or each.path.endswith(".pyc"), each.path))
    count = len(ordered) if everything else SHOWN
    table(
        (
            Column("", styles=_STYLES),
            Column("Why"),
            Column("Before", "right"),
            Column("After", "right"),
            Column("Path", shrinks=True),
        ),
        [(each.change, each.reason, _size(each.before), _size(each.after), each.path) for each in ordered[:count]],
    )
    if rest := ordered[count:]:
        result(f"… and {len(rest)} more: --files {package.name} shows them")


def _size(count: int | None) -> str:
    return "" if count is None else size(count)


def _item(package: ComparedPackage) -> dict[str, object]:
    return asdict(package) | {"diff_id": package.diff_id or None}


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
