"""`lamella attach`: attach files to an environment, as one OCI artifact."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result, result_json
from lamella.cli.settings import REGISTRY, add_settings, trust_of
from lamella.layers.text import counted

if TYPE_CHECKING:
    import argparse

SETTINGS = REGISTRY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.usage = "lamella attach REFERENCE FILE... --type TYPE [options]"
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("files", nargs="+", metavar="FILE", help="file to attach, under the last part of its path")
    parser.add_argument(
        "--type",
        required=True,
        metavar="TYPE",
        help="media type of the whole artifact, such as application/vnd.example.report",
    )
    parser.add_argument(
        "--annotation", metavar="NAME=VALUE", action="append", default=[], help="annotate the artifact; repeatable"
    )
    parser.add_argument(
        "--sign",
        metavar="KEY",
        help="sign the artifact with this private key, as cosign does; the password is read from COSIGN_PASSWORD",
    )
    parser.add_argument("--dry-run", action="store_true", help="show what would be attached; upload nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Attach the files, and print the artifact pinned to its digest."""
    from lamella.layers import attach, read_private_key

    annotations = {}
    for each in arguments.annotation:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise UsageError(f"--annotation {each}: not NAME=VALUE; write one such as org.example.author=Ada")
        annotations[name] = value
    # Read first: a wrong password is found before anything is uploaded.
    key = read_private_key(arguments.sign, os.environ.get("COSIGN_PASSWORD")) if arguments.sign else None
    attached = attach(
        arguments.reference,
        arguments.files,
        arguments.type,
        annotations=annotations,
        signing_key=key,
        dry_run=arguments.dry_run,
        trust=trust_of(arguments),
    )
    if arguments.json:
        result_json(asdict(attached) | {"dry_run": arguments.dry_run})
        return 0
    result(attached.artifact)
    done = "dry run: would attach" if arguments.dry_run else "attached"
    remark(f"{done} {counted(len(attached.files), 'file')} to {attached.reference}", quiet=arguments.quiet)
    return 0
