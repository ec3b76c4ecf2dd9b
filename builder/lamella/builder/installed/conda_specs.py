"""What conda packages ask of each other: a match specification such as `numpy >=1.21,<2 py311*`, and who fits it.

Source: conda's MatchSpec (conda/models/match_spec.py), as rattler has it. rattler is optional: only conda environments need it,
and its wheel is larger than everything else that a laptop installs for Lamella.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamella.builder.installed.distributions import Distribution

_LOCATED = re.compile(r"[/@]")
_BRACKETED = re.compile(r"""\b(?:channel|url)\s*=\s*(?:'[^']*'|"[^"]*"|[^,\]]*),?\s*""")


@functools.cache
def available() -> bool:
    """Whether versions can be compared here, and not names alone."""
    return importlib.util.find_spec("rattler") is not None


def name(spec: str) -> str:
    """The package that `spec` asks for, without channel, versions and build."""
    found = spec.rpartition("::")[2].replace("[", " ").split(" ")[0]
    for operator in "<>=!~":
        found = found.partition(operator)[0]
    return found.lower()


def without_source(spec: str) -> str:
    """`spec` without the channel or URL that it names, where that is more than a name: it may hold a credential."""
    channel, asked, wanted = spec.rpartition("::")
    kept = spec if asked and not _LOCATED.search(channel) else wanted
    if "[" not in kept:
        return kept
    return _BRACKETED.sub(lambda match: "" if _LOCATED.search(match[0]) else match[0], kept).replace("[]", "")


def fits(spec: str, package: Distribution) -> bool:
    """Whether `package`, which has the name that `spec` asks for, is one that it allows.

    What can't be read asks for nothing, as with pip: a spec that rattler refuses, a version that is none.
    """
    from rattler import MatchSpec, PackageRecord
    from rattler import package as nouns
    from rattler.exceptions import InvalidMatchSpecError, InvalidPackageNameError, InvalidVersionError

    # A type of its own in rattler's newer releases; a string in older ones.
    build_string: Any = getattr(nouns, "BuildString", str)
    try:
        wanted = MatchSpec(spec)
        if wanted.build_number is not None or not package.build:
            wanted = MatchSpec(f"{name(spec)} {wanted.version or '*'}")
        record = PackageRecord(package.name, package.version, build_string(package.build or "0"), 0, "noarch")
    except (InvalidMatchSpecError, InvalidPackageNameError, InvalidVersionError, ValueError):
        return True
    return wanted.matches(record)
