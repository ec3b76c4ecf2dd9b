"""`lamella export`: write an ordinary copy of an environment, for machines without Lamella."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result, result_json
from lamella.cli.settings import PLATFORM, STORE, TRUST, add_settings, platform_of, trust_of
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    import argparse

    from lamella.layers import Platform

SETTINGS = (STORE, PLATFORM, *TRUST)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument(
        "path",
        nargs="?",
        metavar="PATH",
        help="folder or archive to write; must not exist, or be an empty folder",
    )
    parser.add_argument(
        "--to-docker", action="store_true", help="load the runnable image into the local Docker engine; without PATH"
    )
    parser.add_argument(
        "--format",
        choices=("dir", "tar.gz", "tar.zst", "zip", "squashfs"),
        help="format to write (default: by the suffix of PATH, else dir)",
    )
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard-link the files to the store instead of copying them; do not write to them",
    )
    parser.add_argument(
        "--prefix",
        metavar="PATH",
        default="",
        help="path that the files refer to (default: PATH for a folder; set by activation for an archive)",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be downloaded; write nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Export, and print the path."""
    if bool(arguments.path) == arguments.to_docker:
        both = "PATH and --to-docker exclude each other; drop one" if arguments.path else "missing PATH or --to-docker"
        raise UsageError(f"export: {both}")
    if arguments.path == "-":
        raise UsageError("export -: writes files, no stream; name one, such as env.tar.gz")
    if arguments.dry_run:
        from lamella.cli.verbs import pull

        return pull.would(arguments, path=arguments.path and os.path.abspath(arguments.path), format=arguments.format)
    from lamella.cli.progress import shown
    from lamella.layers import ExportOptions, Store, export

    platform = platform_of(arguments)
    if arguments.to_docker:
        return _to_docker(arguments, platform)
    began = time.monotonic()
    with shown(quiet=arguments.quiet) as progress:
        exported = export(
            arguments.reference,
            arguments.path,
            options=ExportOptions(arguments.format, arguments.link, arguments.prefix),
            platform=platform,
            store=Store(arguments.store),
            trust=trust_of(arguments),
            progress=progress,
        )
    took = time.monotonic() - began
    if arguments.json:
        result_json(asdict(exported) | {"dry_run": False, "seconds": round(took, 3)})
        return 0
    result(exported.path)
    form = "a folder" if exported.format == "dir" else exported.format
    remark(
        f"{counted(exported.files, 'file')}, {size(exported.bytes)} as {form} in {seconds(took)}", quiet=arguments.quiet
    )
    return 0


def _to_docker(arguments: argparse.Namespace, platform: Platform | None) -> int:
    from lamella.builder import load_image
    from lamella.cli.progress import shown

    with shown(quiet=arguments.quiet) as progress:
        name = load_image(arguments.reference, platform=platform, trust=trust_of(arguments), progress=progress)
    if arguments.json:
        result_json({"reference": arguments.reference, "dry_run": False, "image": name})
    else:
        result(name)
    return 0
