"""`lamella scan`: the environment as Lamella sees it, before anything is pushed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lamella.cli.output import Column, counted, remark, result, result_json, size, table
from lamella.cli.settings import FAIL_ON

if TYPE_CHECKING:
    import argparse

    from lamella.builder.environment import Environment, Finding

SETTINGS = (FAIL_ON,)
LARGEST = 20
"""Packages that are shown without --all: the rest is most of the lines and little of the size."""
OF_ONE_KIND = 5
"""Findings of one kind that are shown without --all."""
STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments."""
    parser.add_argument(
        "prefix",
        nargs="?",
        metavar="PREFIX",
        help="the environment's folder (default: VIRTUAL_ENV, CONDA_PREFIX, .venv or .pixi/envs/default here, "
        "or that of the python on PATH)",
    )
    parser.add_argument("--all", action="store_true", help="every package and every finding, not the first ones alone")
    parser.add_argument("--left-out", action="store_true", help="list the files that no layer will hold, and why")
    for setting in SETTINGS:
        setting.add_to(parser)


def run(arguments: argparse.Namespace) -> int:
    """Scans and shows."""
    from lamella.builder.scan import scan
    from lamella.cli.progress import shown

    with shown(quiet=arguments.quiet) as progress:
        environment = scan(arguments.prefix, progress=progress)
    if arguments.json:
        result_json(document(environment))
    else:
        _show(environment, everything=arguments.all, left_out=arguments.left_out)
        if environment.left_out and not arguments.left_out:
            remark(
                f"{counted(len(environment.left_out), 'path')} left out: --left-out lists them, with the reasons",
                quiet=arguments.quiet,
            )
    return 1 if fails(environment, arguments.fail_on) else 0


def fails(environment: Environment, severity: str) -> bool:
    """Whether there is a finding at least as bad as `severity` (`error`, `warning` or `never`)."""
    bad = {"error": {"error"}, "warning": {"error", "warning"}}.get(severity, set())
    return any(finding.severity in bad for finding in environment.findings)


def document(environment: Environment) -> dict[str, Any]:
    """The scan as JSON."""
    return {
        "prefix": environment.prefix,
        "platform": str(environment.platform),
        "python": environment.interpreter.version,
        "implementation": environment.interpreter.implementation,
        "glibc": environment.needs.glibc,
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
            for package in environment.packages
        ],
        "findings": [
            {
                "severity": finding.severity,
                "kind": finding.kind,
                "subject": finding.subject,
                "message": finding.message,
            }
            for finding in environment.findings
        ],
        "left_out": [{"path": left.path, "reason": left.reason} for left in environment.left_out],
    }


def _show(environment: Environment, *, everything: bool, left_out: bool) -> None:
    packages = sorted(environment.packages, key=lambda package: (-package.size, package.name))
    total = sum(package.size for package in packages)
    needs = f", needs glibc {environment.needs.glibc}" if environment.needs.glibc else ""
    result(os.path.abspath(environment.prefix))
    result(
        f"{environment.interpreter.implementation} {environment.interpreter.version} on {environment.platform}{needs}"
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
        result(f"… and {len(rest)} more of {size(sum(package.size for package in rest))} together: --all lists them")
    result("")
    files = sum(len(package.files) for package in packages)
    result(f"{counted(len(packages), 'package')}, {counted(files, 'file')}, {size(total)}")
    if environment.findings:
        result("")
        _show_findings(environment.findings, everything=everything)
    if left_out and environment.left_out:
        result("")
        table(
            (Column("Left out", shrinks=True), Column("Reason", shrinks=True)),
            [(left.path, left.reason) for left in environment.left_out],
        )


def _show_findings(findings: tuple[Finding, ...], *, everything: bool) -> None:
    order = {"error": 0, "warning": 1, "note": 2}
    ordered = sorted(findings, key=lambda finding: (order[finding.severity], finding.kind, finding.subject))
    rows: list[tuple[str, str, str, str]] = []
    seen: dict[tuple[str, str], int] = {}
    for finding in ordered:
        kind = (finding.severity, finding.kind)
        seen[kind] = seen.get(kind, 0) + 1
        if everything or seen[kind] <= OF_ONE_KIND:
            rows.append((finding.severity, finding.kind, finding.subject, finding.message))
    table(
        (
            Column("Finding", styles=STYLES),
            Column("Kind"),
            Column("About", style="bold", shrinks=True),
            Column("What", shrinks=True),
        ),
        rows,
    )
    if hidden := len(ordered) - len(rows):
        result(f"… and {counted(hidden, 'more finding')} of these kinds: --all lists them")
