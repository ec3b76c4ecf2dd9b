"""`lamella tags`: list the tags of environments in a repository or layout folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import REGISTRY, add_settings, trust_of
from lamella.cli.tables import Column

if TYPE_CHECKING:
    import argparse

    from lamella.layers import TaggedEnvironment

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
    """List the environments with date and platforms; with --all, every tag, one a line."""
    from lamella.layers import tagged_environments, tags

    trust = trust_of(arguments)
    if arguments.all:
        names = tags(arguments.repository, everything=True, trust=trust)
        if arguments.json:
            result_json({"repository": arguments.repository, "tags": names})
        for tag in () if arguments.json else names:
            result(tag)
        return 0
    found = tagged_environments(arguments.repository, trust=trust)
    if arguments.json:
        result_json(
            {
                "repository": arguments.repository,
                "tags": [each.tag for each in found],
                "environments": [document(each) for each in found],
            }
        )
    elif found:
        table(
            (
                Column("Tag", style="bold", shrinks=True),
                Column("Created"),
                Column("Platforms"),
                Column("Digest", style="dim"),
            ),
            [
                (each.tag, each.created, ", ".join(each.platforms), each.digest.hex[:12] if each.digest else "lost")
                for each in found
            ],
        )
    else:
        remark(f"no environments in {arguments.repository}; --all lists every tag", quiet=arguments.quiet)
    return 0


def document(each: TaggedEnvironment) -> dict[str, Any]:
    """Return a tag as JSON; null stands for anything unknown."""
    return {
        "tag": each.tag,
        "digest": str(each.digest) if each.digest else None,
        "created": each.created or None,
        "platforms": list(each.platforms),
    }
