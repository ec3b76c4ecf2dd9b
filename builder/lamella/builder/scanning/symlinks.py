"""Resolve symlinks: make those inside the environment relative, replace others by their targets."""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.environment import LeftOut
from lamella.builder.files.secrets import secret, secret_behind
from lamella.builder.prefix.places import Place, in_environment
from lamella.builder.prefix.walk import FoundFile, walk
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from lamella.builder.scanning.link_targets import LinkTargets
_MOST_LINKS = 40
"""Linux's own limit: more are a loop."""


class Resolved(NamedTuple):
    """Entries in which every symlink leads to another entry."""

    entries: list[FoundFile]
    left_out: list[LeftOut]
    findings: list[Finding]
    expected: dict[str, frozenset[str]]
    """Path to the digests of which the file must have one to ship, for targets that only a record vouches for."""


def resolve(
    entries: Mapping[str, FoundFile], places: Sequence[Place], left_out: Iterable[LeftOut], targets: LinkTargets
) -> Resolved:
    """Resolve the symlinks of `entries` (by path).

    A link that stays in one of `places` becomes relative; any other is replaced by its target, if
    `targets` allows it, or left out.
    """
    omitted = {item.path: item.reason for item in left_out}
    above: set[str] = set()
    resolved = Resolved([], [], [], {})
    for entry in entries.values():
        if entry.target is None:
            resolved.entries.append(entry)
            continue
        target, reason = None, None
        for inside in _candidates(entry, places):
            if inside not in entries:
                above = above or set(folders(entries))
            if inside in entries or inside in above:
                target = posixpath.relpath(inside or ".", posixpath.dirname(entry.path) or ".")
                break
            reason = reason or _omission(inside, omitted)
        if target is not None:
            resolved.entries.append(entry._replace(target=target))
        elif reason:
            resolved.left_out.append(LeftOut(entry.path, f"a link to a file that is left out ({reason})"))
        else:
            _follow(entry, places, targets, resolved)
    kept, dangling = without_dangling(resolved.entries, resolved.left_out)
    return resolved._replace(entries=kept, left_out=[*resolved.left_out, *dangling])


def verified(
    entries: Mapping[str, FoundFile], expected: Mapping[str, frozenset[str]], digest: Callable[[str], str]
) -> Resolved:
    """Leave out each file with an `expected` digest if it has another; `digest` has that of a file by source."""
    resolved = Resolved([], [], [], {})
    for path, digests in expected.items():
        entry = entries.get(path)
        if entry is not None and entry.target is None and (actual := digest(entry.source)) and actual not in digests:
            _leave_out(entry, entry.source, "whose bytes are not those that its record names", resolved)
    if not resolved.left_out:
        return resolved._replace(entries=list(entries.values()))
    gone = {item.path for item in resolved.left_out}
    kept, dangling = without_dangling([each for each in entries.values() if each.path not in gone], resolved.left_out)
    return resolved._replace(entries=kept, left_out=[*resolved.left_out, *dangling])


def without_dangling(entries: list[FoundFile], left_out: Iterable[LeftOut]) -> tuple[list[FoundFile], list[LeftOut]]:
    """Split `entries` into those that ship and links to those that are `left_out`, with the same reasons."""
    omitted = {item.path: item.reason for item in left_out}
    dangling: list[LeftOut] = []
    more = bool(omitted)
    while more:
        more, kept = False, []
        for entry in entries:
            reason = None
            if entry.target is not None:
                inside = posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), entry.target))
                reason = _omission(inside, omitted)
            if reason is None:
                kept.append(entry)
                continue
            more = True
            omitted[entry.path] = reason
            dangling.append(LeftOut(entry.path, f"a link to a file that is left out ({reason})"))
        entries = kept
    return entries, dangling


def _candidates(entry: FoundFile, places: Sequence[Place]) -> Iterator[str]:
    """Paths in the environment that the link may lead to, by its text and by the disk."""
    assert entry.target is not None
    if "/" not in entry.target:
        # A link to a sibling stays one, wherever the folder is on this disk.
        yield posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), entry.target))
    lexical = os.path.normpath(os.path.join(os.path.dirname(entry.source), entry.target))
    for path in dict.fromkeys((lexical, os.path.realpath(entry.source))):
        yield from in_environment(path, places)


def _follow(entry: FoundFile, places: Sequence[Place], targets: LinkTargets, resolved: Resolved) -> None:
    """Add the target of a link that leaves the environment, in place of the link, or leave it out."""
    real = os.path.realpath(entry.source)
    hidden = (secret_behind(entry.path, name) for name in _names(entry.source, real))
    if reason := next(filter(None, hidden), None):
        resolved.left_out.append(LeftOut(entry.path, reason))
        return
    try:
        seen = os.stat(real)
    except OSError:
        resolved.left_out.append(LeftOut(entry.path, "a broken link"))
        message = f"{entry.path}: left out, a broken link to {entry.target}"
        resolved.findings.append(Finding("warning", "links", entry.path, message))
        return
    folder = stat.S_ISDIR(seen.st_mode)
    contains = folder and os.path.realpath(os.path.dirname(entry.source)).startswith(real.rstrip("/") + "/")
    if contains or not (folder or stat.S_ISREG(seen.st_mode)):
        reason = "a link to a folder that contains it, or to a special file"
        resolved.left_out.append(LeftOut(entry.path, reason))
        message = f"{entry.path}: left out, {reason}: {real}"
        resolved.findings.append(Finding("warning", "links", entry.path, message))
        return
    judgement = targets.judge(entry, real)
    if judgement == "foreign":
        _leave_out(entry, real, "", resolved)
    elif judgement == "recorded":
        for path in targets.below(entry.path) if folder else [entry.path]:
            _add_recorded(path, real + path[len(entry.path) :], targets, resolved)
    elif folder:
        _add_folder(entry, real, places, targets, resolved)
    else:
        resolved.entries.append(FoundFile(entry.path, real, seen))


def _leave_out(entry: FoundFile, real: str, why: str, resolved: Resolved) -> None:
    reason = f"a link out of the environment, {why}" if why else "a link out of the environment"
    resolved.left_out.append(LeftOut(entry.path, reason))
    message = (
        f"{entry.path}: left out, {reason}: {real}; reinstall its package"
        if why
        else f"{entry.path}: left out, {reason}: {real}; copy the file there, or ship it with --include"
    )
    resolved.findings.append(Finding("warning", "links", entry.path, message))


def _add_recorded(path: str, source: str, targets: LinkTargets, resolved: Resolved) -> None:
    """Add a file that a record names, from the cache into which an installer links it."""
    real = os.path.realpath(source)
    try:
        seen = os.stat(real)
    except OSError:
        return  # reported as missing
    if stat.S_ISREG(seen.st_mode):
        if not os.access(real, os.R_OK):
            _leave_out(FoundFile(path, real, seen), real, "which this user can't read", resolved)
            return
        hashes = targets.hashes(path, real)
        if hashes is not None:
            resolved.expected[path] = hashes
        resolved.entries.append(FoundFile(path, real, seen))


def _add_folder(entry: FoundFile, real: str, places: Sequence[Place], targets: LinkTargets, resolved: Resolved) -> None:
    start = len(entry.path)
    tree = walk(real, entry.path, lambda path, name: secret(path, name, real + path[start:]))
    inner = {each.path: each for each in tree.entries}
    below = resolve(inner, (*places, Place(real, entry.path)), tree.left_out, targets)
    resolved.entries.extend(below.entries)
    resolved.left_out.extend((*tree.left_out, *below.left_out))
    resolved.findings.extend(below.findings)
    resolved.expected.update(below.expected)
    message = f"{entry.path}: ships as a copy of the folder outside the environment that it links to, {real}"
    resolved.findings.append(Finding("note", "links", entry.path, message))


def _names(source: str, real: str) -> Iterator[str]:
    """Every path on the way from the link at `source` to its target.

    A link to ~/.netrc is a secret wherever ~/.netrc itself leads.
    """
    at = source
    for _ in range(_MOST_LINKS):
        try:
            at = os.path.join(os.path.dirname(at), os.readlink(at))
        except OSError:
            break
        yield os.path.normpath(at)
    yield real


def folders(paths: Iterable[str]) -> Iterator[str]:
    """Yield every parent folder of `paths`, including the prefix ("")."""
    yield ""
    for path in {path.rpartition("/")[0] for path in paths}:
        folder = path
        while folder:
            yield folder
            folder = folder.rpartition("/")[0]


def _omission(path: str, omitted: dict[str, str]) -> str | None:
    while path:
        if path in omitted:
            return omitted[path]
        path = path.rpartition("/")[0]
    return None
