"""Report needs of conda packages, as virtual packages, that exceed the checks on a node.

Sources: conda's "Managing virtual packages" and its CEP on `__archspec`. Nothing is compared with the
machine that scans, which does not run the environment. A node is checked for the needs of the
environment's files (`Needs`), which are more accurate than `__glibc`, the setting of the channel's
compilers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lamella.builder.environment import Needs
    from lamella.builder.installed.distributions import Distribution

_ASKED = re.compile(r"__(?P<name>glibc|cuda)\s*>=?\s*(?P<version>\d+(?:\.\d+)*)")
_LEVEL = re.compile(r"__archspec\b.*\bx86_64_v(?P<level>[234])")


def unchecked(packages: Iterable[Distribution], needs: Needs) -> Iterator[Finding]:
    """One note of each kind, for the package with the highest demand, if it exceeds the checks for `needs`."""
    packages = [each for each in packages if each.origin == "conda"]
    if not packages:
        return  # without importing `packaging`
    from packaging.version import Version

    most: dict[str, tuple[Version, Distribution, str]] = {}
    for each in packages:
        for spec in each.requires:
            if asked := _asked(spec):
                name, version = asked[0], Version(asked[1])
                if name not in most or version > most[name][0]:
                    most[name] = version, each, spec
    checked = {
        "glibc": (needs.glibc, f"glibc {needs.glibc}, which its files need" if needs.glibc else "no glibc"),
        "archspec": (str(needs.level), f"CPU level {needs.level}, which its files are marked with"),
        "cuda": ("", "the driver's libraries, but not their version"),
    }
    for name, (version, each, spec) in sorted(most.items()):
        known, shown = checked[name]
        if not known or version > Version(known):
            message = f"{each.name} {each.version} depends on {spec}, but nodes are checked for {shown}"
            yield Finding("note", "requires", each.name, message)


def _asked(spec: str) -> tuple[str, str] | None:
    """Kind and version of the virtual package in `spec`."""
    if match := _ASKED.match(spec):
        return match["name"], match["version"]
    if match := _LEVEL.match(spec):
        return "archspec", match["level"]
    return None
