"""What the user should know of files that no package owns, of those that must not ship, and what forbids a push."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from lamella.builder.distributions import normalised
from lamella.builder.environment import Finding, LeftOut
from lamella.builder.secrets import REASONS, secret

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from lamella.builder.environment import Environment, Severity
    from lamella.builder.walk import Entry

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# pip's AdjacentTempDirectory: the first letters of a name become tildes and others.
_RENAMED = re.compile(r"lib/python[\d.]+/(?:site|dist)-packages/~")


def without_secrets(entries: Iterable[Entry]) -> tuple[list[Entry], list[LeftOut]]:
    """Those of `entries`, which no index's package owns, that may ship; and the others."""
    kept: list[Entry] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        reason = secret(entry.path, entry.path.rpartition("/")[2], entry.source) or _leftover(entry.path)
        if reason is None:
            kept.append(entry)
        else:
            left_out.append(LeftOut(entry.path, reason))
    return kept, left_out


def _leftover(path: str) -> str | None:
    """Why a file is what an installer left behind; None where it is not. Both kinds hold URLs with credentials."""
    if path.startswith("conda-meta/") and path.endswith(".json"):
        return "a record of conda's that counts for no package"
    if _RENAMED.match(path):
        return "renamed by pip to be removed, and not removed"
    return None


def secrets(left_out: Iterable[LeftOut]) -> list[Finding]:
    """One finding for each file that is left out because it holds credentials."""
    hidden = sorted((item for item in left_out if item.reason in REASONS), key=lambda item: item.path)
    return [
        Finding("warning", "secret", item.path, f"{item.path} does not ship: it is {item.reason}") for item in hidden
    ]


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


def against(environment: Environment, fail_on: Severity | None = None, strict: Collection[str] = ()) -> list[Finding]:
    """The findings that forbid a push: all from `fail_on` up, and any that says that a package of `strict` is missing,
    or does not get what it requires.
    """
    worst = _SEVERITIES[: _SEVERITIES.index(fail_on) + 1] if fail_on else ()
    names = {normalised(name) for name in strict}
    here = {normalised(package.name) for package in environment.packages}
    broken = {"requires", "missing", "record", "replaced", "duplicate", "libraries", "ignore"}
    absent = [
        Finding("error", "strict", name, f"{name} must ship, and is not in the environment: install it")
        for name in sorted(names - here)
    ]
    return absent + [
        finding
        for finding in environment.findings
        if finding.severity in worst or (finding.kind in broken and normalised(finding.subject) in names)
    ]
