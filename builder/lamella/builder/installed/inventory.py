"""An environment by names, times and records, before any file is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.environment import LeftOut
    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.places import Place
    from lamella.builder.prefix.walk import FoundFile
    from lamella.layers.published.findings import Finding


class Inventory(NamedTuple):
    """Every file that may ship, with installers' records."""

    entries: dict[str, FoundFile]
    """Files by path. Every symlink among them leads to another."""
    places: tuple[Place, ...]
    conda: list[Distribution]
    pip: list[Distribution]
    """Distributions in the order of sys.path, including local projects."""
    python: frozenset[str]
    """Paths of the interpreter's files, unless a conda package owns them."""
    left_out: list[LeftOut]
    findings: list[Finding]
    expected: Mapping[str, frozenset[str]]
    """Path to the digests of which a file outside the environment, to which it is a link, must have one to ship."""
    searched: tuple[str, ...] = ()
    """Folders outside the environment in which Python, or PATH, finds packages and their scripts without a link."""
