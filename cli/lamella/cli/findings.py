"""Findings as people read them: `scan` shows them, `push` counts them, `inspect` shows those that were attached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.cli.output import Column, counted, result, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.layers.published.findings import Finding, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
OF_ONE_KIND = 5
"""Findings of one kind that are shown without --all."""
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show(findings: Iterable[Finding], *, everything: bool) -> None:
    """A table of them, the worst first."""
    ordered = sorted(findings, key=lambda each: (SEVERITIES.index(each.severity), each.kind, each.subject))
    rows: list[tuple[str, str, str]] = []
    seen: dict[tuple[str, str], int] = {}
    for finding in ordered:
        kind = (finding.severity, finding.kind)
        seen[kind] = seen.get(kind, 0) + 1
        if everything or seen[kind] <= OF_ONE_KIND:
            rows.append((finding.severity, finding.kind, finding.message))
    table((Column("Finding", styles=_STYLES), Column("Kind"), Column("What", shrinks=True)), rows)
    if hidden := len(ordered) - len(rows):
        result(f"… and {counted(hidden, 'more finding')} of these kinds: --all lists them")


def document(finding: Finding) -> dict[str, Any]:
    """One as JSON."""
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "subject": finding.subject,
        "message": finding.message,
    }


def how_many(findings: Sequence[Finding], severities: Sequence[Severity] = SEVERITIES) -> str:
    """`1 error, 2 warnings and 3 notes`; empty for none of `severities`."""
    found = [finding.severity for finding in findings]
    counts = [counted(found.count(severity), severity) for severity in severities if severity in found]
    return " and ".join(filter(None, (", ".join(counts[:-1]), *counts[-1:])))
