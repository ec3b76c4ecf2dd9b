"""Match conda specifications such as `numpy >=1.21,<2 py311*` against installed packages.

Source: conda's MatchSpec (conda/models/match_spec.py), as rattler implements it. Imported only for
conda environments. A machine without a wheel of rattler checks names alone.
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
    """Whether versions can be compared, and not only names."""
    return importlib.util.find_spec("rattler") is not None


def name(spec: str) -> str:
    """Package name in `spec`, without channel, versions and build."""
    found = spec.rpartition("::")[2].replace("[", " ").split(" ")[0]
    for operator in "<>=!~":
        found = found.partition(operator)[0]
    return found.lower()


def without_source(spec: str) -> str:
    """Remove the channel or URL from `spec` unless it is a plain name: it may contain a credential."""
    channel, asked, wanted = spec.rpartition("::")
    kept = spec if asked and not _LOCATED.search(channel) else wanted
    if "[" not in kept:
        return kept
    return _BRACKETED.sub(lambda match: "" if _LOCATED.search(match[0]) else match[0], kept).replace("[]", "")


def fits(spec: str, package: Distribution) -> bool:
    """Whether `spec` allows `package`, which has the name in it.

    An invalid spec or version allows everything, as with pip.
    """
    from rattler import MatchSpec, PackageRecord
    from rattler import package as nouns
    from rattler.exceptions import InvalidMatchSpecError, InvalidPackageNameError, InvalidVersionError

    # A type of its own in newer releases of rattler; a string in older ones.
    build_string: Any = getattr(nouns, "BuildString", str)
    try:
        wanted = MatchSpec(spec)
        if wanted.build_number is not None or not package.build:
            wanted = MatchSpec(f"{name(spec)} {wanted.version or '*'}")
        record = PackageRecord(package.name, package.version, build_string(package.build or "0"), 0, "noarch")
    except (InvalidMatchSpecError, InvalidPackageNameError, InvalidVersionError, ValueError):
        return True
    return wanted.matches(record)
