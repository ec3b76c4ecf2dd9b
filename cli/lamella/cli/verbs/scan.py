"""`lamella scan`: show an environment and its findings, before a push."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lamella.cli import environment, findings
from lamella.cli.output import Column, remark, result, result_json, table
from lamella.cli.settings import IMAGE_PREFIX, add_settings
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import Environment, Needs

SETTINGS = (IMAGE_PREFIX, *environment.SETTINGS)
LARGEST = 20
"""Packages shown without --all: the rest is most of the lines and little of the size."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    environment.add_to(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"show every package and finding (default: the {LARGEST} largest, and {findings.OF_ONE_KIND} findings of a kind)",
    )
    parser.add_argument("--left-out", action="store_true", help="list the paths left out, with the reasons")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Scan, and show the environment."""
    from lamella.cli.progress import shown

    with shown(quiet=arguments.quiet) as progress:
        scanned = environment.scanned(arguments, progress)
    if arguments.json:
        result_json(document(scanned))
    else:
        _show(scanned, everything=arguments.all, left_out=arguments.left_out)
        if scanned.left_out and not arguments.left_out:
            remark(
                f"{counted(len(scanned.left_out), 'path')} left out: --left-out shows them",
                quiet=arguments.quiet,
            )
    where = "see the result" if arguments.json or arguments.all else "see above, or all of them with --all"
    if objection := environment.objection(scanned, arguments.fail_on, arguments.strict, where):
        remark(f"lamella: {objection}")
        return 1
    return 0


def document(scanned: Environment) -> dict[str, Any]:
    """Return the scan as JSON."""
    return {
        "prefix": scanned.prefix,
        "platform": str(scanned.platform),
        "python": scanned.interpreter.version,
        "implementation": scanned.interpreter.implementation,
        "glibc": scanned.needs.glibc,
        "cpu_level": scanned.needs.level,
        "drivers": list(scanned.needs.drivers),
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "origin": package.origin,
                "build": package.build,
                "source": package.source,
                "files": len(package.files),
                "size": package.size,
            }
            for package in scanned.packages
        ],
        "findings": [findings.document(finding) for finding in scanned.findings],
        "left_out": [{"path": left.path, "reason": left.reason} for left in scanned.left_out],
    }


def _show(scanned: Environment, *, everything: bool, left_out: bool) -> None:
    packages = sorted(scanned.packages, key=lambda package: (-package.size, package.name))
    total = sum(package.size for package in packages)
    result(os.path.abspath(scanned.prefix))
    result(
        f"{scanned.interpreter.implementation} {scanned.interpreter.version} on {scanned.platform}{_needs(scanned.needs)}"
    )
    result("")
    count = len(packages) if everything else LARGEST
    table(
        (
            Column("Package", style="bold"),
            Column("Version"),
            Column("Origin", style="cyan"),
            Column("Files", "right"),
            Column("Size", "right"),
            Column("", bar=True),
        ),
        [
            (
                package.name,
                package.version,
                package.origin,
                f"{len(package.files):,}",
                size(package.size),
                str(package.size / max(1, packages[0].size)),
            )
            for package in packages[:count]
        ],
    )
    if rest := packages[count:]:
        result(f"… and {len(rest)} more ({size(sum(package.size for package in rest))}): --all shows them")
    result("")
    files = sum(len(package.files) for package in packages)
    result(f"{counted(len(packages), 'package')}, {counted(files, 'file')}, {size(total)}")
    if scanned.findings:
        result("")
        findings.show(scanned.findings, everything=everything)
    if left_out and scanned.left_out:
        result("")
        table(
            (Column("Left out", shrinks=True), Column("Reason", shrinks=True)),
            [(left.path, left.reason) for left in scanned.left_out],
        )


def _needs(needs: Needs) -> str:
    """Return a node's requirements as the end of a line."""
    required = [f"glibc {needs.glibc}"] if needs.glibc else []
    if needs.level > 1:
        required.append(f"an x86-64-v{needs.level} CPU")
    required += needs.drivers
    return f", requires {', '.join(required)}" if required else ""
