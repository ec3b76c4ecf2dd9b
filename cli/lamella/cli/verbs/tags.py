"""`lamella tags`: list the tags of environments in a repository or layout folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.output import result, result_json
from lamella.cli.settings import REGISTRY, add_settings, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = REGISTRY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("repository", metavar="REPOSITORY", help="registry/repository, or oci:FOLDER")
    parser.add_argument(
        "--all",
        action="store_true",
        help="list every tag: images, artifacts, signatures too (default: environments alone)",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """List the tags, one a line."""
    from lamella.layers import tags

    names = tags(arguments.repository, everything=arguments.all, trust=trust_of(arguments))
    if arguments.json:
        result_json({"repository": arguments.repository, "tags": names})
    else:
        for tag in names:
            result(tag)
    return 0
