"""Tables, counts and JSON of findings, for `scan`, `push` and `inspect`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.cli.output import result, table
from lamella.cli.tables import Column
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lamella.layers import Finding, Severity

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
OF_ONE_KIND = 5
"""Findings of one kind shown without --all."""
_STYLES = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def show(findings: Iterable[Finding], *, everything: bool) -> None:
    """Print a table of `findings`, the worst first."""
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
        result(f"… and {counted(hidden, 'more finding')} of these kinds: --all shows them")


def document(finding: Finding) -> dict[str, Any]:
    """Return `finding` as JSON."""
    return {
        "severity": finding.severity,
        "kind": finding.kind,
        "subject": finding.subject,
        "message": finding.message,
    }


def how_many(findings: Sequence[Finding], severities: Sequence[Severity] = SEVERITIES) -> str:
    """Return `1 error, 2 warnings and 3 notes`; an empty string without findings of `severities`."""
    found = [finding.severity for finding in findings]
    counts = [counted(found.count(severity), severity) for severity in severities if severity in found]
    return " and ".join(filter(None, (", ".join(counts[:-1]), *counts[-1:])))
