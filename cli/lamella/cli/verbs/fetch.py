"""`lamella fetch`: write files attached to an environment into a folder."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result, result_json
from lamella.cli.settings import TRUST, add_settings, trust_of
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

SETTINGS = TRUST


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "lamella fetch REFERENCE FOLDER --type TYPE [options]"
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("folder", metavar="FOLDER", help="folder for the files; made if it is missing")
    parser.add_argument("--type", required=True, metavar="TYPE", help="type of the artifacts to fetch")
    parser.add_argument(
        "--digest", default="", metavar="DIGEST", help="only the artifact with this digest (default: all of the type)"
    )
    parser.add_argument("--force", action="store_true", help="replace files (default: refuse if one exists)")
    parser.add_argument("--limit", default="1GiB", metavar="SIZE", help="most bytes to download (default: 1GiB)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be written; download no file")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Fetch, and print the path of each file."""
    from lamella.cli.progress import shown
    from lamella.cli.quantities import size_of
    from lamella.layers import FetchOptions, fetch

    limit = size_of(arguments.limit, "--limit") or 0
    _check_digest(arguments.digest)
    options = FetchOptions(arguments.digest, arguments.force, limit)
    with shown(quiet=arguments.quiet) as progress:
        files = fetch(
            arguments.reference,
            arguments.folder,
            arguments.type,
            options=options,
            dry_run=arguments.dry_run,
            trust=trust_of(arguments),
            progress=progress,
        )
    if arguments.json:
        result_json(
            {
                "reference": arguments.reference,
                "dry_run": arguments.dry_run,
                "files": [
                    asdict(file) | {"digest": str(file.digest), "artifact": str(file.artifact)} for file in files
                ],
            }
        )
        return 0
    for file in files:
        result(file.path)
    done = "dry run: would write" if arguments.dry_run else "wrote"
    total = size(sum(file.size for file in files))
    remark(f"{done} {counted(len(files), 'file')}, {total}", quiet=arguments.quiet)
    return 0


def _check_digest(text: str) -> None:
    from lamella.layers import Digest, InvalidContent

    try:
        if text:
            Digest.parse(text)
    except InvalidContent as error:
        raise UsageError(f"--digest {error}") from None
