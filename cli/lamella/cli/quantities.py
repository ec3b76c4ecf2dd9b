"""Sizes, ages, seconds and percentages of flags."""

from __future__ import annotations

import re

from lamella.cli.errors import UsageError
from lamella.cli.settings import quoted

_BYTES = {"B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def size_of(text: str | None, flag: str = "--keep") -> int | None:
    """Return `20GB`, `1.5TB` or `512MiB` in bytes."""
    return None if text is None else int(_amount(flag, text, _BYTES, "20GB"))


def age_of(text: str | None, flag: str = "--older-than") -> float | None:
    """Return `30d`, `2w` or `12h` in seconds."""
    return None if text is None else _amount(flag, text, _SECONDS, "30d")


def _amount(flag: str, text: str, units: dict[str, int], example: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([A-Za-z]*)", text, re.ASCII)
    if not match or match[2] not in units:
        problem = "no unit" if match and not match[2] else "invalid"
        raise UsageError(
            f"{flag} {quoted(text)}: {problem}; use a number and a unit ({', '.join(units)}), such as {example}"
        )
    return float(match[1]) * units[match[2]]


def seconds_of(text: str, flag: str) -> float:
    """Return a positive number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 10**7:
        raise UsageError(f"{flag} {quoted(text)}: not a number of seconds above 0; use 60 or the like")
    return value


def share_of(text: str, flag: str) -> float:
    """Return `10%` as a number from 0 to below 1."""
    try:
        share = float(text.removesuffix("%"))
    except ValueError:
        share = -1.0
    if not 0 <= share < 100:
        raise UsageError(f"{flag} {quoted(text)}: not a percentage from 0 to 99; use 10%")
    return share / 100
