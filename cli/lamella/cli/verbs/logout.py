"""`lamella logout`: remove the credentials for a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.output import remark, result_json

if TYPE_CHECKING:
    import argparse

    from lamella.cli.settings import Setting

SETTINGS: tuple[Setting, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("registry", metavar="REGISTRY", help="host of the registry, such as ghcr.io or localhost:5000")


def run(arguments: argparse.Namespace) -> int:
    """Remove the credentials. Succeeds if there are none."""
    from lamella.layers import logout, registry_name

    registry = registry_name(arguments.registry)
    forgotten = logout(registry)
    if arguments.json:
        result_json({"registry": registry, "forgotten": forgotten})
    else:
        outcome = "credentials removed" if forgotten else "no credentials found"
        remark(f"{registry}: {outcome}", quiet=arguments.quiet)
    return 0
