"""`lamella explain`: show which package and layer a file is in, or why it is left out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lamella.cli import environment
from lamella.cli.output import result, result_json, table
from lamella.cli.settings import IMAGE_PREFIX, add_settings
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import Environment, ExplainedFile, Explanation

SETTINGS = (IMAGE_PREFIX, *environment.SETTINGS)
SHOWN = 20
"""Files of a folder shown one by one; more are counted by package."""
_HOW = {
    "unchanged": "ships unchanged",
    "rewritten": "ships with the prefix, interpreter or library path rewritten",
    "generated": "ships with one text, whichever installer wrote it",
    "compiled": "ships, compiled anew when it is pushed",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="file or folder, relative to the prefix or to the working directory, or absolute; or a module, such as numpy.linalg",
    )
    environment.add_to(parser)
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Scan, and explain the path. The exit code is 1 if nothing is known of it."""
    from lamella.builder import explain
    from lamella.cli.progress import shown

    with shown(quiet=arguments.quiet) as progress:
        scanned = environment.scanned(arguments, progress)
    found = explain(scanned, arguments.path, image_prefix=arguments.image_prefix)
    if arguments.json:
        result_json(document(scanned, found, arguments.image_prefix))
    else:
        _show(found, arguments.image_prefix)
    return 1 if found.reason else 0


def document(scanned: Environment, found: Explanation, image_prefix: str) -> dict[str, Any]:
    """Return an explanation as JSON."""
    return {
        "path": found.path,
        "prefix": scanned.prefix,
        "files": [
            asdict(each.file)
            | {
                "image_path": f"{image_prefix}/{each.file.path}",
                "package": each.package.name,
                "version": each.package.version,
                "origin": each.package.origin,
            }
            for each in found.files
        ],
        "left_out": [asdict(item) for item in found.left_out],
        "reason": found.reason,
    }


def _show(found: Explanation, image_prefix: str) -> None:
    if found.reason:
        result(f"{found.path}: {found.reason}")
    elif len(found.files) == 1 and not found.left_out:
        _show_one(found.files[0], image_prefix)
    elif found.files:
        _show_files(found.files)
    for item in found.left_out[:SHOWN]:
        result(f"{item.path}: left out: {item.reason}")
    if rest := len(found.left_out[SHOWN:]):
        result(f"… and {counted(rest, 'path')} more left out: lamella scan --left-out shows them")


def _show_one(each: ExplainedFile, image_prefix: str) -> None:
    file = each.file
    result(f"{image_prefix}/{file.path}")
    link = f", a link to {file.link}" if file.link is not None else ""
    count = "" if file.link is not None or file.how == "compiled" else f", {size(file.size)}"
    result(f"in the layer of {_named(each)}{count}{link}")
    result(_HOW[file.how] + (f"; from {file.source}" if file.source else ""))


def _show_files(files: tuple[ExplainedFile, ...]) -> None:
    if len(files) <= SHOWN:
        rows = [(each.file.path, _named(each), each.file.how) for each in files]
        table((Column("Path", shrinks=True), Column("Package"), Column("Ships")), rows)
        return
    packages: dict[str, list[int]] = {}
    for each in files:
        packages.setdefault(_named(each), []).append(each.file.size)
    table(
        (Column("Package", style="bold"), Column("Files", "right"), Column("Size", "right")),
        [(name, f"{len(sizes):,}", size(sum(sizes))) for name, sizes in sorted(packages.items())],
    )


def _named(each: ExplainedFile) -> str:
    package = each.package
    return f"{f'{package.name} {package.version}'.rstrip()} ({package.origin})"
