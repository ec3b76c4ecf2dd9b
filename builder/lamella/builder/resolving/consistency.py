"""Whether a resolution is consistent: what each package requires on the target is there, in a version that it takes. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving.reachable import applies, parsed
from lamella.builder.resolving.target_tags import target_markers
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.builder.resolving.model import Target


@dataclass(frozen=True, slots=True)
class Resolved:
    """A package of the target."""

    name: str
    """Normalised."""
    version: str
    requires: tuple[str, ...] | None
    """Requires-Dist; None if unknown before it is downloaded."""


def inconsistencies(
    packages: Iterable[Resolved], provided: Mapping[str, str], dropped: Iterable[str], target: Target
) -> Iterator[Finding]:
    """One finding for each requirement that `packages` do not meet on `target`.

    `provided`: version by name of what comes in another way, such as conda's packages; empty if unknown.
    """
    listed = tuple(packages)
    there = {each.name: each.version for each in listed}
    away = set(dropped)
    markers = target_markers(target)
    for each in listed:
        for requirement in parsed(each.requires or ()):
            name = normalised(requirement.name)
            if name == each.name or not applies(requirement, markers):
                continue
            who = f"{each.name} {each.version} requires {requirement.name}{requirement.specifier}"
            version = there.get(name, provided.get(name))
            if version is None:
                what = "which has nothing for the target" if name in away else "which is not installed; install it"
                yield Finding("error", "requires", each.name, f"{who}, {what}")
            elif not _within(requirement.specifier, version):
                yield Finding("warning", "requires", each.name, f"{who}, but {name} {version} is what ships")


def _within(specifier: object, version: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    assert isinstance(specifier, SpecifierSet)
    try:
        return not version or specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return True  # a version from before PEP 440 cannot be compared
