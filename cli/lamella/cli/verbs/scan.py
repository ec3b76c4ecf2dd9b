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
        found = environment.scanned(arguments, progress)
    if arguments.json:
        result_json(document(found))
    else:
        _show(found, everything=arguments.all, left_out=arguments.left_out)
        if found.left_out and not arguments.left_out:
            remark(
                f"{counted(len(found.left_out), 'path')} left out: --left-out shows them",
                quiet=arguments.quiet,
            )
    where = "see the result" if arguments.json or arguments.all else "see above, or all of them with --all"
    if objection := environment.objection(found, arguments.fail_on, arguments.strict, where):
        remark(f"lamella: {objection}")
        return 1
    return 0


def document(found: Environment) -> dict[str, Any]:
    """Return the scan as JSON."""
    return {
        "prefix": found.prefix,
        "platform": str(found.platform),
        "python": found.interpreter.version,
        "implementation": found.interpreter.implementation,
        "glibc": found.needs.glibc,
        "cpu_level": found.needs.level,
        "drivers": list(found.needs.drivers),
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
            for package in found.packages
        ],
        "findings": [findings.document(finding) for finding in found.findings],
        "left_out": [{"path": left.path, "reason": left.reason} for left in found.left_out],
    }


def _show(found: Environment, *, everything: bool, left_out: bool) -> None:
    packages = sorted(found.packages, key=lambda package: (-package.size, package.name))
    total = sum(package.size for package in packages)
    result(os.path.abspath(found.prefix))
    result(f"{found.interpreter.implementation} {found.interpreter.version} on {found.platform}{_needs(found.needs)}")
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
    if found.findings:
        result("")
        findings.show(found.findings, everything=everything)
    if left_out and found.left_out:
        result("")
        table(
            (Column("Left out", shrinks=True), Column("Reason", shrinks=True)),
            [(left.path, left.reason) for left in found.left_out],
        )


def _needs(needs: Needs) -> str:
    """Return a node's requirements as the end of a line."""
    found = [f"glibc {needs.glibc}"] if needs.glibc else []
    if needs.level > 1:
        found.append(f"an x86-64-v{needs.level} CPU")
    found += needs.drivers
    return f", requires {', '.join(found)}" if found else ""
