"""Packages that are of one system by their nature, which nodes need nothing in place of.

A conda package without any build for Linux is one of them if it is listed here, or if its channel is conda-forge or a default
one, whose packages are built for every system that they have code for. One of another channel may just not have been
built for Linux yet: leaving it out would break the code that imports it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from lamella.builder.resolving.model import InstalledCondaPackage

_NAMES = re.compile(
    r"appnope|pyobjc(?:-.+)?|python\.app|libcxx|ld64(?:_.+)?|cctools(?:_.+)?|"
    r"pywin32(?:-.+)?|pywinpty|winpty|wmi|win_inet_pton|winkerberos|win32_setctime|menuinst|console_shortcut|"
    r"ucrt|vc(?:14_runtime|omp14)?|vs20\d\d_.+|m2w?64?-.+"
)
_CHANNELS = re.compile(r"(?:.*/)?(?:conda-forge|pkgs/(?:main|r|msys2)|defaults)/?")
_CLASSIFIERS = re.compile(r"(?:MacOS|Microsoft)\b.*")


def is_listed(name: str) -> bool:
    """Whether the package `name`, of conda or of an index of distributions, is of one system."""
    return bool(_NAMES.fullmatch(name))


def is_of_one_system(package: InstalledCondaPackage) -> bool:
    """Whether `package`, which has no build for Linux, can be left out there."""
    return bool(is_listed(package.name) or _CHANNELS.fullmatch(package.channel))


def names_other_systems(systems: Collection[str]) -> bool:
    """Whether the classifiers of a package name operating systems, and only those that nodes do not run."""
    return bool(systems) and all(map(_CLASSIFIERS.fullmatch, systems))
