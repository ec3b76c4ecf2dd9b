"""`lamella artifacts`: list the artifacts attached to an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.cli.output import remark, result_json, table
from lamella.cli.settings import REGISTRY, add_settings, trust_of
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.layers import AttachedArtifact

SETTINGS = REGISTRY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("--type", default="", metavar="TYPE", help="only artifacts of this type (default: all)")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """List the artifacts, one a line."""
    from lamella.layers import artifacts

    found = artifacts(arguments.reference, arguments.type, trust=trust_of(arguments))
    if arguments.json:
        result_json({"reference": arguments.reference, "artifacts": [document(each) for each in found]})
        return 0
    if found:
        show(found)
    else:
        of_type = f" of type {arguments.type}" if arguments.type else ""
        remark(f"nothing attached{of_type}", quiet=arguments.quiet)
    return 0


def show(found: tuple[AttachedArtifact, ...]) -> None:
    """Print a table of artifacts."""
    table(
        (
            Column("Attached", style="cyan"),
            Column("Type", shrinks=True),
            Column("Digest", style="dim"),
            Column("Platform", spare=True),
            Column("Size", "right"),
            Column("Files", shrinks=True),
        ),
        [
            (each.kind, each.artifact_type, each.digest.short, each.platform, size(each.size), _files(each))
            for each in found
        ],
    )


def document(artifact: AttachedArtifact) -> dict[str, Any]:
    """Return an artifact as JSON."""
    return {
        "kind": artifact.kind,
        "type": artifact.artifact_type,
        "digest": str(artifact.digest),
        "platform": artifact.platform or None,
        "size": artifact.size,
        "files": [
            {"name": file.name, "media_type": file.media_type, "size": file.size, "digest": str(file.digest)}
            for file in artifact.files
        ],
        "annotations": dict(artifact.annotations),
        "error": artifact.error or None,
    }


def _files(artifact: AttachedArtifact) -> str:
    if artifact.error:
        return f"not readable: {artifact.error}"
    # A digest stands for a missing name; people can do nothing with it.
    named = [file.name for file in artifact.files if file.name != file.digest.hex]
    shown = named[:3]
    more = [f"{len(named) - 3} more"] if named[3:] else []
    unnamed = len(artifact.files) - len(named)
    # Findings and bills of materials are one document each.
    if unnamed and artifact.kind == "artifact":
        more.append(f"{counted(unnamed, 'file')} without a name")
    return ", ".join([*shown, *more])
