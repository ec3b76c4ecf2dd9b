"""Assign files to distributions: compare the claims of their records with the files on disk."""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.content.script_templates import LONGEST
from lamella.builder.content.scripts import without_flags
from lamella.builder.environment import LeftOut
from lamella.builder.files.small_file import read_small
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from packaging.version import Version

    from lamella.builder.files.read import FileContent
    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.walk import FoundFile


class Ownership(NamedTuple):
    """Files by owner."""

    owned: list[tuple[Distribution, list[FoundFile]]]
    unowned: list[FoundFile]
    left_out: list[LeftOut]
    findings: list[Finding]


def own(
    found: Sequence[Distribution],
    entries: Mapping[str, FoundFile],
    contents: Mapping[str, FileContent],
    omitted: Callable[[str], bool],
) -> Ownership:
    """Assign each of `entries` (by path) to one of `found`, or leave it unowned.

    `contents` has the content of each regular file by source; `omitted` checks whether a path is left out.
    """
    result = Ownership([], [], [], [])
    claims = _Claims(entries, contents)
    for each in found:
        if not each.name:
            message = f"{each.records}: names no project; its files count as unowned; reinstall it"
            result.findings.append(Finding("warning", "record", each.records, message))
    winners = _in_use([each for each in found if each.name], claims, result)
    for index, distribution in enumerate(winners):
        claims.add(index, distribution)
    _settle(winners, claims, result)
    owners = claims.owners
    owners |= _by_folder(claims, entries)
    owners |= _by_metadata(winners, entries, owners)
    owners |= _by_name(winners, entries, owners)
    files: list[list[FoundFile]] = [[] for _ in winners]
    replaced = tuple(item.path + "/" for item in result.left_out)
    for path, entry in entries.items():
        owner = owners.get(path)
        if owner is not None:
            files[owner].append(entry)
        elif not (replaced and (path + "/").startswith(replaced)):
            result.unowned.append(entry)
    for index, distribution in enumerate(winners):
        result.owned.append((distribution, files[index]))
        result.findings.extend(_findings(index, distribution, claims, omitted))
    return result


class _Claims:
    """Claims of all records on the files on this disk, gathered in one pass."""

    def __init__(self, entries: Mapping[str, FoundFile], contents: Mapping[str, FileContent]) -> None:
        self.owners: dict[str, int] = {}
        self.contested: dict[str, list[int]] = {}
        self.missing: dict[int, list[str]] = defaultdict(list)
        self.changed: dict[int, list[str]] = defaultdict(list)
        self.folders: dict[str, int] = {}
        """Folders at a path that a record names as a file: links to folders outside the environment."""
        self._entries = entries
        self._digests = {
            path: contents[source].digest for path, source, _, target in entries.values() if target is None
        }
        """sha256 of each regular file by path."""

    def add(self, index: int, distribution: Distribution) -> None:
        """Add the claims of the distribution with this index."""
        owners, recorded, digests = self.owners, distribution.files or {}, self._digests
        # Most files are as recorded, and claimed once: look only at the others one by one.
        odd = [path for path, digest in recorded.items() if digests.get(path) != digest]
        absent = {path for path in odd if not self._exists(index, path, recorded[path])}
        there = [path for path in recorded if path not in absent] if absent else recorded
        if owners.keys().isdisjoint(there):
            owners.update(dict.fromkeys(there, index))
            return
        for path in there:
            if owners.setdefault(path, index) != index:
                self.contested.setdefault(path, [owners[path]]).append(index)

    def _exists(self, index: int, path: str, digest: str) -> bool:
        """Whether a file that is not as recorded is on this disk; note that it is missing or changed."""
        entry = self._entries.get(path)
        if entry is None:
            # Byte code is never among the entries: it is compiled again. virtualenv records its folders.
            if not path.endswith((".pyc", ".pyo", "/__pycache__")):
                if path in self._all_folders:
                    self.folders.setdefault(path, index)
                else:
                    self.missing[index].append(path)
            return False
        if digest and entry.target is None and not _has_flags(entry, digest):
            self.changed[index].append(path)
        return True

    @functools.cached_property
    def _all_folders(self) -> set[str]:
        found: set[str] = set()
        for folder in {path.rpartition("/")[0] for path in self._entries}:
            above = folder
            while above and above not in found:
                found.add(above)
                above = above.rpartition("/")[0]
        return found

    def is_debians(self, distribution: Distribution) -> bool:
        """Whether Debian's package manager installed it; pip leaves its name in INSTALLER there too."""
        records = distribution.records
        metadata = (self._entries.get(path) for path in (f"{records}/METADATA", f"{records}/PKG-INFO", records))
        return not distribution.installer and any(entry and "/dist-packages/" in entry.source for entry in metadata)

    def digest(self, path: str) -> str:
        """sha256 on this disk; empty for a link or a missing file."""
        return self._digests.get(path, "")


def _has_flags(script: FoundFile, recorded: str) -> bool:
    """Whether flags for Python in its first line are the only change of `script` since `recorded`: pipx adds `-E`."""
    if not script.path.startswith("bin/") or script.seen.st_size > LONGEST:
        return False
    try:
        content = read_small(script.source, LONGEST)
    except OSError:
        return False
    return hashlib.sha256(without_flags(content)).hexdigest() == recorded


def _in_use(found: Sequence[Distribution], claims: _Claims, result: Ownership) -> list[Distribution]:
    """Choose one distribution per origin and name. Leave out the others' metadata: their modules are not imported."""
    groups: dict[tuple[bool, str], list[Distribution]] = defaultdict(list)
    for distribution in found:
        groups[distribution.origin == "conda", distribution.name].append(distribution)
    winners = []
    for (_, name), group in sorted(groups.items()):
        winner = group[0]
        if len(group) > 1:
            # Two in one folder: an upgrade left the old one behind. Its files decide, else the newest version.
            winner = max(group, key=lambda each: (_matches(each, claims), *_order(each.version)))
        winners.append(winner)
        for loser in group:
            if loser is winner:
                continue
            result.left_out.append(LeftOut(loser.records, f"metadata of {name} that is not in use"))
            if loser.version == winner.version:
                continue  # two kinds of metadata for the same files, as Debian installs them
            message = (
                f"{name}: installed as {winner.version} and as {loser.version}; {winner.version} ships, since the "
                f"files are its own; remove {loser.records}"
            )
            result.findings.append(Finding("warning", "duplicate", name, message))
    return winners


def _matches(distribution: Distribution, claims: _Claims) -> int:
    """Number of its files that are on this disk as recorded."""
    return sum(1 for path, digest in (distribution.files or {}).items() if digest and claims.digest(path) == digest)


def _order(version: str) -> tuple[Version | bool, ...]:
    """Sort key of `version`. A version that is invalid in PEP 440 sorts below all valid ones."""
    from packaging.version import InvalidVersion, Version

    try:
        return True, Version(version)
    except InvalidVersion:
        return (False,)


def _settle(winners: Sequence[Distribution], claims: _Claims, result: Ownership) -> None:
    """Assign each contested path to the distribution whose recorded hash matches."""
    for path, rivals in sorted(claims.contested.items()):
        recorded = [(winners[index].files or {})[path] for index in rivals]
        actual = claims.digest(path)
        right = [index for index, digest in zip(rivals, recorded, strict=True) if digest == actual]
        claims.owners[path] = (right or rivals)[0]
        others = [winners[index] for index in rivals if index != claims.owners[path]]
        owner = winners[claims.owners[path]]
        # No finding for pip over conda: `replaced` reports it once for the whole package.
        others = [each for each in others if (each.origin == "conda") == (owner.origin == "conda")]
        if others:
            recorded = [(each.files or {})[path] for each in (owner, *others)]
            same = len(set(recorded)) == 1
            message = (
                f"{path}: claimed by {owner.name} and by {', '.join(other.name for other in others)}; "
                f"ships with {owner.name}" + (", whose record matches it" if right and not same else "")
            )
            result.findings.append(Finding("note" if same else "warning", "owners", owner.name, message))


def _by_folder(claims: _Claims, entries: Mapping[str, FoundFile]) -> dict[str, int]:
    """Give the files in a folder that a record names to the distribution of that record."""
    if not claims.folders:
        return {}
    folders = {f"{path}/": index for path, index in claims.folders.items()}
    prefixes = tuple(folders)
    return {
        path: next(index for folder, index in folders.items() if path.startswith(folder))
        for path in entries.keys() - claims.owners.keys()
        if path.startswith(prefixes)
    }


def _by_metadata(
    winners: Sequence[Distribution], entries: Mapping[str, FoundFile], owners: Mapping[str, int]
) -> dict[str, int]:
    """Give a metadata folder's files to its distribution, recorded or not."""
    folders = {distribution.records: index for index, distribution in enumerate(winners) if distribution.records}
    found = {}
    for path in entries.keys() - owners.keys():
        at = path.find("-info/")
        index = folders.get(path[: at + 5] if at >= 0 else path)
        if index is not None:
            found[path] = index
    return found


def _by_name(
    winners: Sequence[Distribution], entries: Mapping[str, FoundFile], owners: Mapping[str, int]
) -> dict[str, int]:
    """Give files to distributions without a file list, by their top-level names and their scripts' names."""
    tops: dict[str, int] = {}
    named: dict[str, int] = {}
    for index, distribution in enumerate(winners):
        for script in distribution.scripts:
            if f"bin/{script}" in entries and f"bin/{script}" not in owners:
                named.setdefault(f"bin/{script}", index)
        if distribution.files is None:
            site = os.path.dirname(distribution.records)
            for top in distribution.tops or (distribution.name.replace("-", "_"), distribution.name):
                tops.setdefault(f"{site}/{top}", index)
    sites = {os.path.dirname(top) + "/" for top in tops}
    for path in entries.keys() - owners.keys() if tops else ():
        for site in sites:
            if path.startswith(site):
                top = site + path[len(site) :].partition("/")[0].partition(".")[0]
                if top in tops:
                    named[path] = tops[top]
    return named


def _findings(
    index: int, distribution: Distribution, claims: _Claims, omitted: Callable[[str], bool]
) -> Iterator[Finding]:
    name = f"{distribution.name} {distribution.version}"
    if distribution.trouble:
        message = f"{distribution.records}: {distribution.trouble}; its files ship as they are; reinstall it"
        yield Finding("warning", "record", distribution.name, message)
    if claims.is_debians(distribution):
        return  # dpkg strips libraries and moves scripts, and keeps its own records
    gone = [path for path in claims.missing[index] if not omitted(path)]
    if gone:
        message = f"{_some(gone)}: missing, though {name} records it; reinstall {distribution.name}"
        yield Finding("warning", "missing", distribution.name, message)
    changed = [path for path in claims.changed[index] if claims.owners[path] == index]
    if changed:
        message = f"{_some(changed)}: changed since {name} was installed; ships as it is"
        yield Finding("warning", "patched", distribution.name, message)


def _some(paths: list[str]) -> str:
    ordered = sorted(paths)
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} and {len(ordered) - 1} more"
