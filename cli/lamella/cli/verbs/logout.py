"""`lamella logout`: forgets a registry's credentials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.output import remark, result_json

if TYPE_CHECKING:
    import argparse

    from lamella.cli.settings import Setting

SETTINGS: tuple[Setting, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument("registry", metavar="REGISTRY", help="such as ghcr.io or localhost:5000")


def run(arguments: argparse.Namespace) -> int:
    """Forgets them; it is no error where there were none."""
    from lamella.layers.registry.login import logout, registry_of

    registry = registry_of(arguments.registry)
    forgotten = logout(registry)
    if arguments.json:
        result_json({"registry": registry, "forgotten": forgotten})
    else:
        said = "credentials forgotten" if forgotten else "nothing to forget"
        remark(f"{registry}: {said}", quiet=arguments.quiet)
    return 0
