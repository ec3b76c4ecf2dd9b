"""Licences of a package as CycloneDX writes them: SPDX expressions where the metadata allows no doubt.

Sources: PEP 639, and its appendix on licence classifiers, for those that name one SPDX licence; CycloneDX 1.6, licenseChoice:
one expression, or any number of licences.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.layers.oci.values import clean_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_NAME = 80
"""Characters of the longest licence name: a longer License field is the licence's text."""
_SPDX = {
    "Blue Oak Model License (BlueOak-1.0.0)": "BlueOak-1.0.0",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zero-Clause BSD (0BSD)": "0BSD",
}
"""By the last part of the classifier. Left out are those of several licences, such as the BSD and the Apache Software License."""


def of_distribution(expression: str, named: str, classified: Sequence[str]) -> list[dict[str, Any]]:
    """Return licences from License-Expression, License, and the last parts of `License ::` classifiers."""
    if expression:
        return _licence(expression)
    if spdx(named):
        return _licence(named)
    if len(classified) == 1:
        return _licence(classified[0])
    if classified:
        return [{"license": {"id": _SPDX[name]} if name in _SPDX else {"name": name}} for name in classified]
    return _licence(named) if len(named) <= _LONGEST_NAME and named != "UNKNOWN" else []


def of_conda(named: object) -> list[dict[str, Any]]:
    """Return licences from the `license` field of a conda record."""
    return _licence(clean_text(named) or "")


def spdx(text: str) -> str:
    """Return `text` as a canonical SPDX expression; empty if it is not one."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        return canonicalize_license_expression(text)
    except InvalidLicenseExpression:
        return ""


def _licence(text: str) -> list[dict[str, Any]]:
    if not text:
        return []
    expression = _SPDX.get(text) or spdx(text)
    return [{"expression": expression}] if expression else [{"license": {"name": text}}]
