"""Findings about shared libraries: missing here, or found here and not on a node."""

from __future__ import annotations

import os
from collections import defaultdict
from typing import TYPE_CHECKING

from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from lamella.builder.scanning.ld_so import Needed
    from lamella.builder.scanning.run_paths import Reach

_COMPILERS = frozenset({"libgcc_s.so.1", "libstdc++.so.6"})
"""Nearly every node has them: glibc loads the former itself to end threads, and package managers need both."""


def missing(needed: Needed, names: Mapping[str, str], prefix: str, without: Container[str]) -> Iterator[Finding]:
    """One finding for each package and each library that it lacks. `names`: path to package."""
    for soname, sources in sorted(needed.missing.items()):
        for package, paths in _by_package(sources, names, prefix, soname):
            if soname in without:
                message = f"{soname}: needed by {_some(paths)}, but left out on request"
                yield Finding("note", "libraries", package, message)
            else:
                message = f"{soname}: needed by {_some(paths)}, but neither in the environment nor on this system"
                yield Finding("warning", "libraries", package, message)


def elsewhere(needed: Needed, names: Mapping[str, str], prefix: str) -> Iterator[Finding]:
    """One finding for each package whose libraries this machine finds in another way than a node."""
    for soname, users in sorted(needed.here.items()):
        places = dict(users)
        for package, paths in _by_package(places, names, prefix, soname):
            where = os.path.dirname(places[f"{prefix}/{paths[0]}"]).removeprefix(f"{prefix}/")
            message = _by_path(soname, paths) or (
                f"{soname}: needed by {_some(paths)}, and found in {where} only by LD_LIBRARY_PATH or ld.so.conf of this "
                "machine: set LD_LIBRARY_PATH on nodes, or build it with a run path"
            )
            yield Finding("warning", "libraries", package, message)
    instead: dict[tuple[str, str], set[str]] = defaultdict(set)
    for soname, users in needed.instead.items():
        for source, holder in users:
            user, owner = (names.get(each.removeprefix(f"{prefix}/"), "unowned") for each in (source, holder))
            instead[user, owner].add(soname)
    for (user, owner), sonames in sorted(instead.items()):
        first, *more = sorted(sonames)
        others = f" and {len(more)} more" if more else ""
        has = "has them, so that this system's do not ship" if more else "has it, so that this system's does not ship"
        message = f"{first}{others}: needed by {user}; {owner} {has}"
        yield Finding("note", "libraries", user, message)


def unreachable(reach: Reach, names: Mapping[str, str], interpreter: Container[str]) -> Iterator[Finding]:
    """One finding for each package with files that ship beside libraries from the system and do not find them there."""
    lacking: dict[str, set[str]] = defaultdict(set)
    for path, _, soname in reach.unreached():
        if path not in interpreter and names.get(path) != "python":
            lacking[path].add(soname)
    for path, sonames in sorted(lacking.items()):
        for soname in sorted(sonames):
            if message := _by_path(soname, [path]):
                sonames.discard(soname)
                yield Finding("warning", "libraries", names.get(path, path), message)
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for path, sonames in sorted((path, sonames) for path, sonames in lacking.items() if sonames):
        alike[names.get(path, path), tuple(sorted(sonames))].append(path)
    for (package, needed), paths in alike.items():
        look = "looks" if len(paths) == 1 else "look"
        message = (
            f"{', '.join(needed)}: ships in lib/system, where {_some(paths)} never {look}: install it on nodes, or set "
            "LD_LIBRARY_PATH for that program"
        )
        yield Finding("note" if _COMPILERS.issuperset(needed) else "warning", "libraries", package, message)


def _by_package(
    sources: Iterable[str], names: Mapping[str, str], prefix: str, otherwise: str
) -> Iterator[tuple[str, list[str]]]:
    by: dict[str, list[str]] = defaultdict(list)
    for source in sorted(sources):
        path = source.removeprefix(prefix + "/")
        by[names.get(path, otherwise)].append(path)
    yield from by.items()


def _by_path(soname: str, paths: list[str]) -> str:
    """The message about a library that is needed by its absolute path, which no run path or variable changes, or ''.

    A linker that is given a library without a soname by its path records that path.
    """
    if not soname.startswith("/"):
        return ""
    return (
        f"{soname}: needed by {_some(paths)} at this path, which nodes do not have: install it there, or use its name "
        "alone: patchelf --replace-needed PATH NAME FILE"
    )


def _some(paths: list[str]) -> str:
    return paths[0] + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")
