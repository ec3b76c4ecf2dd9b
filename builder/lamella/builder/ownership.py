"""Which distribution owns which file: what each one's records claim, against what is on this disk."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import Finding, LeftOut

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.distributions import Distribution
    from lamella.builder.walk import Entry


class Ownership(NamedTuple):
    """Who owns what."""

    owned: list[tuple[Distribution, list[Entry]]]
    """Each distribution that Python would import, and its files; by name."""
    unowned: list[Entry]
    left_out: list[LeftOut]
    findings: list[Finding]


def own(
    found: Sequence[Distribution],
    entries: Mapping[str, Entry],
    digests: Mapping[str, str],
    omitted: frozenset[str],
) -> Ownership:
    """Gives each of `entries` (by path) to one of `found` (in the order of sys.path), or to nobody.

    `digests` has the sha256 of each path that is a regular file; `omitted` are the paths that are left out.
    """
    result = Ownership([], [], [], [])
    winners = _imported(found, digests, result)
    owners = _by_metadata(winners, entries) | _by_record(winners, entries, digests, result)
    owners |= _by_name(winners, entries, owners)
    files: dict[str, list[Entry]] = defaultdict(list)
    loser = tuple(item.path + "/" for item in result.left_out)
    for path, entry in entries.items():
        owner = owners.get(path)
        if owner is not None:
            files[owner].append(entry)
        elif not (loser and (path + "/").startswith(loser)):
            result.unowned.append(entry)
    for distribution in winners:
        result.owned.append((distribution, files[distribution.name]))
        result.findings.extend(_missing(distribution, entries, omitted))
        result.findings.extend(_patched(distribution, owners, digests))
    return result


def _imported(found: Sequence[Distribution], digests: Mapping[str, str], result: Ownership) -> list[Distribution]:
    """One distribution per name, by name. The others' metadata is left out: it describes what Python does not import."""
    groups: dict[str, list[Distribution]] = defaultdict(list)
    for distribution in found:
        groups[distribution.name].append(distribution)
    winners = []
    for name, group in sorted(groups.items()):
        site = os.path.dirname(group[0].folder)
        first = [each for each in group if os.path.dirname(each.folder) == site]
        winner = max(first, key=lambda each: (_matches(each, digests), each.version)) if len(first) > 1 else first[0]
        winners.append(winner)
        for loser in group:
            if loser is winner:
                continue
            result.left_out.append(LeftOut(loser.folder, f"metadata of {name} that is not the one in use"))
            message = (
                f"{name} is here as {winner.version} and as {loser.version}: Python imports {winner.version}, "
                f"which ships; remove {loser.folder}"
            )
            result.findings.append(Finding("warning", "duplicate", name, message))
    return winners


def _matches(distribution: Distribution, digests: Mapping[str, str]) -> int:
    """How many of its files are on this disk as it recorded them."""
    files = distribution.files or {}
    return sum(hash_ == _recorded_form(digests[path]) for path, hash_ in files.items() if path in digests)


def _by_metadata(winners: Sequence[Distribution], entries: Mapping[str, Entry]) -> dict[str, str]:
    """A metadata folder's files are its distribution's, recorded or not."""
    folders = {distribution.folder: distribution.name for distribution in winners}
    owners = {}
    for path in entries:
        at = path.find("-info/")
        folder = path[: at + 5] if at >= 0 else path
        if folder in folders:
            owners[path] = folders[folder]
    return owners


def _by_record(
    winners: Sequence[Distribution], entries: Mapping[str, Entry], digests: Mapping[str, str], result: Ownership
) -> dict[str, str]:
    owners: dict[str, str] = {}
    contested: dict[str, list[tuple[str, str]]] = {}
    recorded: dict[str, str] = {}
    for distribution in winners:
        name = distribution.name
        for path, hash_ in (distribution.files or {}).items():
            if path not in entries:
                continue
            if path in owners and owners[path] != name:
                contested.setdefault(path, [(owners[path], recorded[path])]).append((name, hash_))
            else:
                owners[path], recorded[path] = name, hash_
    for path, claims in sorted(contested.items()):
        actual = _recorded_form(digests[path]) if path in digests else ""
        right = [name for name, hash_ in claims if hash_ == actual]
        owners[path] = right[0] if right else claims[-1][0]
        same = len({hash_ for _, hash_ in claims}) == 1
        others = ", ".join(name for name, _ in claims if name != owners[path])
        message = f"{path} is also claimed by {others}: its bytes are those of {owners[path]}, in whose layer it ships"
        result.findings.append(Finding("note" if same else "warning", "owners", owners[path], message))
    return owners


def _by_name(
    winners: Sequence[Distribution], entries: Mapping[str, Entry], owners: Mapping[str, str]
) -> dict[str, str]:
    """Files of distributions without a list of them: what is under the names that they say they have."""
    tops: dict[str, str] = {}
    for distribution in winners:
        if distribution.files is None:
            site = os.path.dirname(distribution.folder)
            for top in distribution.tops or (distribution.name.replace("-", "_"), distribution.name):
                tops.setdefault(f"{site}/{top}", distribution.name)
    named: dict[str, str] = {}
    if not tops:
        return named
    sites = {os.path.dirname(distribution.folder) + "/" for distribution in winners if distribution.files is None}
    for path in entries:
        for site in sites:
            if path.startswith(site) and path not in owners:
                top = site + path[len(site) :].partition("/")[0].partition(".")[0]
                if top in tops:
                    named[path] = tops[top]
    return named


def _missing(distribution: Distribution, entries: Mapping[str, Entry], omitted: frozenset[str]) -> list[Finding]:
    gone = [
        path
        for path in distribution.files or ()
        if path not in entries and path not in omitted and not path.endswith((".pyc", ".pyo"))
    ]
    if not gone:
        return []
    message = f"{distribution.name} {distribution.version} records {_some(gone)}, not on this disk: reinstall it"
    return [Finding("warning", "missing", distribution.name, message)]


def _patched(distribution: Distribution, owners: Mapping[str, str], digests: Mapping[str, str]) -> list[Finding]:
    changed = [
        path
        for path, hash_ in (distribution.files or {}).items()
        if hash_.startswith("sha256=")
        and owners.get(path) == distribution.name
        and path in digests
        and hash_ != _recorded_form(digests[path])
    ]
    if not changed:
        return []
    message = (
        f"{_some(changed)} of {distribution.name} {distribution.version} changed since the install: ships as it is"
    )
    return [Finding("warning", "patched", distribution.name, message)]


def _recorded_form(digest: str) -> str:
    """A hex digest as RECORD writes it."""
    return "sha256=" + base64.urlsafe_b64encode(bytes.fromhex(digest)).decode().rstrip("=")


def _some(paths: list[str]) -> str:
    ordered = sorted(paths)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} and {len(ordered) - 1} more"
