"""Why a resolver found no answer: its text as clauses about packages, in the words of a refusal. No I/O.

uv explains the steps of its solver, with the name of a project that it was given here. Sources: uv's `pubgrub/report.rs`; pip's
messages about candidates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving.target_tags import short_version
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.builder.resolving.model import Target

PROJECT = "lamella-target"
"""Name of the project that uv is given."""
_SHOWN = 4
_OTHERS = "no index has a version of "
_CONCLUSION = re.compile(r"we can conclude that .*?(?=\b[Bb]ecause |$)")
_WORDS = {PROJECT, "python", "and", "of", "that"}
_SPECIFIER = r"(?:[<>=!~]=?[^\s,;<>=!~]+(?:,\s?[<>=!~]=?[^\s,;<>=!~]+)*)"
_NAME = r"(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)(?:\[[^\]]*\])?"
_ONE = rf"{_NAME}(?P<range>{_SPECIFIER})?"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why requirements cannot be met."""

    text: str
    """Clauses; empty if the resolver's text has none that is known."""
    names: tuple[str, ...] = ()
    """Normalised names of packages without a file that fits."""


@dataclass(frozen=True, slots=True)
class _Kind:
    pattern: str
    clause: Callable[[str, re.Match[str], Target], str]
    """Makes a clause of a package, such as `numpy 2.4.6` or `numpy>=3`, and of the match."""
    lacks: bool = True
    """Whether the package has no file that fits."""


def _without_wheel(package: str, match: re.Match[str], target: Target) -> str:
    tag = match.groupdict().get("tag") or ""
    python = f" and Python {short_version(target.python)}" if tag != "platform" else ""
    return f"{package} has no wheel for {target.platform}{python}"


_UV = (
    _Kind(rf"{_ONE} (?:has|have) no (?:usable )?wheels(?: with a matching (?P<tag>[\w ]+?) tag)?", _without_wheel),
    _Kind(rf"there (?:is|are) no versions? of {_ONE}", lambda package, *_: f"no index has {package}"),
    _Kind(
        rf"only (?:the following versions of )?{_NAME}\S* (?:is|are) available",
        lambda package, *_: f"{_OTHERS}{package} that is required",
    ),
    _Kind(
        rf"{_ONE} was not found in the (?:package registry|provided package locations|cache)",
        lambda package, *_: f"{package} is not on the configured indexes",
    ),
    _Kind(
        rf"does not satisfy Python\s?(?P<python>{_SPECIFIER}) and (?:all versions of )?{_ONE} depends? on Python",
        lambda package, match, target: f"{package} requires Python {match['python']}, not {target.python}",
    ),
    _Kind(rf"{_ONE} (?:was|is) yanked", lambda package, *_: f"{package} was yanked"),
    _Kind(
        rf"{_ONE} depends? on (?P<other>(?!Python\b)[A-Za-z0-9][\w.-]*(?:\[[^\]]*\])?{_SPECIFIER}?)",
        lambda package, match, _: f"{package} requires {match['other'].rstrip('.')}",
        lacks=False,
    ),
)
_PIP = (
    _Kind(
        rf"(?:Requires-Python (?P<python>{_SPECIFIER}).*?)?No matching distribution found for {_ONE}",
        lambda package, match, target: (
            f"{package} requires Python {match['python']}, not {target.python}"
            if match["python"]
            else _without_wheel(package, match, target)
        ),
    ),
)


def of_uv(text: str, target: Target) -> Reason:
    """Return the clauses of uv's explanation `text`, which is one line."""
    return _reason(_CONCLUSION.sub("", text.partition(" hint: ")[0]), target, _UV)


def of_pip(text: str, target: Target) -> Reason:
    """Return the clauses of pip's errors `text`, which are one line."""
    return _reason(text, target, _PIP)


def _reason(text: str, target: Target, kinds: tuple[_Kind, ...]) -> Reason:
    clauses: list[tuple[int, str]] = []
    names: list[str] = []
    for kind in kinds:
        for match in re.finditer(kind.pattern, text):
            name = match["name"]
            if name.lower() in _WORDS:
                continue
            version = match.groupdict().get("range") or ""
            package = f"{name} {version[2:]}" if version.startswith("==") else f"{name}{version}"
            clauses.append((match.start(), kind.clause(package, match, target)))
            names += [normalised(name)] if kind.lacks else []
    shown = list(dict.fromkeys(clause for _, clause in sorted(clauses)))
    if len(names) > len(set(names)):
        # uv excludes the other versions of a package first. The problem of the remaining one says enough.
        shown = [clause for clause in shown if not clause.startswith(_OTHERS)]
    rest = f"; and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return Reason(escaped("; ".join(shown[:_SHOWN]) + rest, 600), tuple(dict.fromkeys(names)))
