"""Which installed distributions the target needs: those that a user asked for, and their requirements there. No I/O."""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING

from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving.target_tags import source_markers, target_markers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from packaging.requirements import Requirement

    from lamella.builder.resolving.model import InstalledDistribution, InstalledPackages, Target

_EXTRA = re.compile(r"extra\s*==\s*['\"]([^'\"]+)['\"]")


def parsed(requirements: Iterable[str]) -> Iterator[Requirement]:
    """Valid requirements; as in pip, an invalid one requires nothing."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requirements:
        try:
            yield Requirement(text)
        except InvalidRequirement:
            continue


def applies(requirement: Requirement, markers: Mapping[str, str], extras: Collection[str] = ()) -> bool:
    """Whether `requirement` counts on a machine with `markers`, with any of `extras` or without one."""
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate({**markers, "extra": extra}) for extra in ("", *extras))


def fallen_away(installed: InstalledPackages, target: Target) -> dict[str, str]:
    """Distributions that only requirements of the source's system ask for: name to name of one that requires it."""
    here, there = source_markers(installed), target_markers(target)
    if installed.system == target.platform.os and installed.architecture == target.platform.architecture:
        return {}
    by_name = {each.name: each for each in installed.pypi}
    reached_there = _reached(by_name, there)
    reached_here = _reached(by_name, here)
    return {name: reached_here[name] for name in sorted(reached_here.keys() - reached_there.keys())}


def _reached(by_name: Mapping[str, InstalledDistribution], markers: Mapping[str, str]) -> dict[str, str]:
    """Names that are reached from those that were asked for, each with one that requires it."""
    roots = [name for name, each in by_name.items() if each.requested]
    found = dict.fromkeys(roots, "")
    pending = deque(roots)
    while pending:
        name = pending.popleft()
        for requirement in parsed(by_name[name].requires):
            wanted = normalised(requirement.name)
            # Which extras were asked for is not recorded: those whose packages are installed may have been.
            if wanted in by_name and wanted not in found and applies(requirement, markers, _extras(by_name[name])):
                found[wanted] = name
                pending.append(wanted)
    return found


def _extras(distribution: InstalledDistribution) -> set[str]:
    return {extra for text in distribution.requires for extra in _EXTRA.findall(text)}
