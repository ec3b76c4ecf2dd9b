"""What tests ask of a scanned environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from support.installed import is_debians

if TYPE_CHECKING:
    from lamella.builder.environment import Environment, File, Package
    from lamella.layers.published.findings import Finding

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
"""site-packages of environments that are made with the tests' own interpreter."""
SITE_ON_NODES = SITE.replace("site-", "dist-") if is_debians() else SITE
"""The same folder, as that interpreter names it on a node."""


def package(environment: Environment, name: str, origin: str = "") -> Package:
    """The one package of that name (and origin)."""
    (found,) = [each for each in environment.packages if each.name == name and origin in ("", each.origin)]
    return found


def paths(package: Package) -> set[str]:
    """Where its files belong."""
    return {file.path for file in package.files}


def file(environment: Environment, path: str) -> File:
    """The one file that belongs at `path`."""
    (found,) = [each for package in environment.packages for each in package.files if each.path == path]
    return found


def shipped(environment: Environment) -> set[str]:
    """Where every file of every package belongs."""
    return {file.path for package in environment.packages for file in package.files}


def findings(environment: Environment, kind: str) -> list[Finding]:
    """Those of one kind."""
    return [finding for finding in environment.findings if finding.kind == kind]


def reasons(environment: Environment) -> dict[str, str]:
    """Map each path that is left out to its reason."""
    return {item.path: item.reason for item in environment.left_out}
