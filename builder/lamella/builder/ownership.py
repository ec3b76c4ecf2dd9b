"""Which distribution owns which file: what each one's records claim, against what is on this disk."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import Finding, LeftOut

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from lamella.builder.distributions import Distribution
    from lamella.builder.walk import Entry


class Ownership(NamedTuple):
    """Who owns what."""

    owned: list[tuple[Distribution, list[Entry]]]
    unowned: list[Entry]
    left_out: list[LeftOut]
    findings: list[Finding]


def own(
    found: Sequence[Distribution],
    entries: Mapping[str, Entry],
    digests: Mapping[str, str],
    omitted: Callable[[str], bool],
) -> Ownership:
    """Gives each of `entries` (by path) to one of `found`, or to nobody.

    `digests` has the sha256 of each path that is a regular file; `omitted` says whether a path is left out.
    """
    result = Ownership([], [], [], [])
    winners = _in_use(found, digests, result)
    owners = _by_metadata(winners, entries) | _by_record(winners, entries, digests, result)
    owners |= _by_name(winners, entries, owners)
    files: list[list[Entry]] = [[] for _ in winners]
    replaced = tuple(item.path + "/" for item in result.left_out)
    for path, entry in entries.items():
        owner = owners.get(path)
        if owner is not None:
            files[owner].append(entry)
        elif not (replaced and (path + "/").startswith(replaced)):
            result.unowned.append(entry)
    for index, distribution in enumerate(winners):
        result.owned.append((distribution, files[index]))
        if distribution.trouble:
            message = f"{distribution.records} {distribution.trouble}: its files ship as they are; reinstall it"
            result.findings.append(Finding("warning", "record", distribution.name, message))
        result.findings.extend(_missing(distribution, entries, omitted))
        result.findings.extend(_patched(distribution, index, owners, digests))
    return result


def _in_use(found: Sequence[Distribution], digests: Mapping[str, str], result: Ownership) -> list[Distribution]:
    """One distribution per origin and name. The others' metadata is left out: it describes what is not imported."""
    groups: dict[tuple[bool, str], list[Distribution]] = defaultdict(list)
    for distribution in found:
        groups[distribution.origin == "conda", distribution.name].append(distribution)
    winners = []
    for (_, name), group in sorted(groups.items()):
        winner = group[0]
        if len(group) > 1:
            # Two in one folder: an upgrade that did not remove the old one. The files tell which one it is.
            winner = max(group, key=lambda each: (_matches(each, digests), _numbers(each.version)))
        winners.append(winner)
        for loser in group:
            if loser is winner:
                continue
            result.left_out.append(LeftOut(loser.records, f"metadata of {name} that is not the one in use"))
            message = (
                f"{name} is here as {winner.version} and as {loser.version}: the files are those of {winner.version}, "
                f"which ships; remove {loser.records}"
            )
            result.findings.append(Finding("warning", "duplicate", name, message))
    return winners


def _matches(distribution: Distribution, digests: Mapping[str, str]) -> int:
    """How many of its files are on this disk as it recorded them."""
    return sum(1 for path, digest in (distribution.files or {}).items() if digest and digests.get(path) == digest)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else -1 for part in version.split("."))


def _by_metadata(winners: Sequence[Distribution], entries: Mapping[str, Entry]) -> dict[str, int]:
    """A metadata folder's files are its distribution's, recorded or not."""
    folders = {distribution.records: index for index, distribution in enumerate(winners) if distribution.records}
    owners = {}
    for path in entries:
        at = path.find("-info/")
        index = folders.get(path[: at + 5] if at >= 0 else path)
        if index is not None:
            owners[path] = index
    return owners


def _by_record(
    winners: Sequence[Distribution], entries: Mapping[str, Entry], digests: Mapping[str, str], result: Ownership
) -> dict[str, int]:
    owners: dict[str, int] = {}
    contested: dict[str, list[int]] = {}
    for index, distribution in enumerate(winners):
        for path in distribution.files or ():
            if path in entries and owners.setdefault(path, index) != index:
                contested.setdefault(path, [owners[path]]).append(index)
    for path, claims in sorted(contested.items()):
        recorded = [(winners[index].files or {})[path] for index in claims]
        right = [index for index, digest in zip(claims, recorded, strict=True) if digest == digests.get(path)]
        # pip over conda is not worth a word here: `replaced` says it once for the package.
        owners[path] = (right or claims)[0]
        others = [winners[index] for index in claims if index != owners[path]]
        owner = winners[owners[path]]
        if owner.origin != "conda" and all(other.origin != "conda" for other in others):
            same = len(set(recorded)) == 1
            message = (
                f"{path} is claimed by {owner.name} and by {', '.join(other.name for other in others)}: "
                f"it ships with {owner.name}" + ("" if same else ", whose bytes it has")
            )
            result.findings.append(Finding("note" if same else "warning", "owners", owner.name, message))
    return owners


def _by_name(
    winners: Sequence[Distribution], entries: Mapping[str, Entry], owners: Mapping[str, int]
) -> dict[str, int]:
    """Files of distributions without a list of them: what is under the names that they say they have."""
    tops: dict[str, int] = {}
    for index, distribution in enumerate(winners):
        if distribution.files is None:
            site = os.path.dirname(distribution.records)
            for top in distribution.tops or (distribution.name.replace("-", "_"), distribution.name):
                tops.setdefault(f"{site}/{top}", index)
    if not tops:
        return {}
    sites = {os.path.dirname(top) + "/" for top in tops}
    named: dict[str, int] = {}
    for path in entries:
        for site in sites:
            if path.startswith(site) and path not in owners:
                top = site + path[len(site) :].partition("/")[0].partition(".")[0]
                if top in tops:
                    named[path] = tops[top]
    return named


def _missing(distribution: Distribution, entries: Mapping[str, Entry], omitted: Callable[[str], bool]) -> list[Finding]:
    gone = [
        path
        for path in distribution.files or ()
        if path not in entries and not path.endswith((".pyc", ".pyo")) and not omitted(path)
    ]
    if not gone:
        return []
    message = f"{distribution.name} {distribution.version} records {_some(gone)}, not on this disk: reinstall it"
    return [Finding("warning", "missing", distribution.name, message)]


def _patched(
    distribution: Distribution, index: int, owners: Mapping[str, int], digests: Mapping[str, str]
) -> list[Finding]:
    changed = [
        path
        for path, digest in (distribution.files or {}).items()
        if digest and owners.get(path) == index and digests.get(path, digest) != digest
    ]
    if not changed:
        return []
    message = (
        f"{_some(changed)} of {distribution.name} {distribution.version} changed since the install: ships as it is"
    )
    return [Finding("warning", "patched", distribution.name, message)]


def _some(paths: list[str]) -> str:
    ordered = sorted(paths)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} and {len(ordered) - 1} more"
