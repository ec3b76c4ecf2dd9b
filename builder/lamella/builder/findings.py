"""What the user should know of files that no package owns, and of those that must not ship."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from lamella.builder.environment import Finding, LeftOut
from lamella.builder.secrets import VCS, secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.walk import Entry


def without_secrets(entries: Iterable[Entry]) -> tuple[list[Entry], list[LeftOut], list[Finding]]:
    """Those of `entries` that may ship, and what is said of the others."""
    kept: list[Entry] = []
    left_out: list[LeftOut] = []
    findings: list[Finding] = []
    for entry in entries:
        name = entry.path.rpartition("/")[2]
        reason = secret(entry.path, name, entry.source)
        if reason is None and not VCS.isdisjoint(entry.path.split("/")):
            reason = "of a version control system's folder"
        if reason is None:
            kept.append(entry)
            continue
        left_out.append(LeftOut(entry.path, reason))
        findings.append(Finding("warning", "secret", entry.path, f"{entry.path} does not ship: it is {reason}"))
    return kept, left_out, findings


def unowned(entries: Iterable[Entry], site: str) -> list[Finding]:
    """One finding for each module or folder that no package owns."""
    tops: Counter[str] = Counter()
    for entry in entries:
        if entry.path.startswith(site + "/"):
            tops[f"{site}/{entry.path[len(site) + 1 :].partition('/')[0]}"] += 1
        else:
            tops["/".join(entry.path.split("/")[:2])] += 1
    return [
        Finding(
            "warning" if top.startswith(site + "/") else "note",
            "unowned",
            top,
            f"{top}{f' ({count} files)' if count > 1 else ''} belongs to no package: it ships with the unowned files",
        )
        for top, count in sorted(tops.items())
    ]
