"""`lamella umount`: unmount an environment, or clean up after a mount that crashed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.named_folders import existing_store
from lamella.cli.output import remark, result_json
from lamella.cli.settings import STORE, add_settings
from lamella.cli.verbs.mount import document

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE,)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("target", metavar="TARGET", help="folder given to mount")
    parser.add_argument(
        "--lazy", action="store_true", help="unmount even while programs use it; they continue until they end"
    )
    parser.add_argument("--dry-run", action="store_true", help="show the mounted environment; change nothing")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Unmount."""
    from lamella.layers import umount

    store = existing_store(arguments)
    mounted = umount(arguments.target, store=store, lazy=arguments.lazy, dry_run=arguments.dry_run)
    if arguments.json:
        result_json(document(mounted) | {"whole": mounted.whole, "dry_run": arguments.dry_run})
    elif not mounted.whole:
        was = mounted.reference or "an environment"
        remark(
            f"{was} was not fully mounted at {mounted.target}; removed its record and left other files alone",
            quiet=arguments.quiet,
        )
    else:
        done = "would unmount" if arguments.dry_run else "unmounted"
        remark(f"{done} {mounted.reference} from {mounted.target}", quiet=arguments.quiet)
    return 0
