"""Find requirements that the environment does not meet, as `pip check` and conda would.

Sources: PEP 508 and PyPA's version specifiers, by `packaging`; conda's `depends` by rattler if installed,
since conda's versions and builds have an order of their own; else by name only.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

from lamella.builder.installed import conda_specs
from lamella.builder.installed.distributions import normalised
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lamella.builder.files.content_cache import ContentCache
    from lamella.builder.installed.distributions import Distribution
    from lamella.builder.prefix.interpreter import InterpreterFacts, Prefix
    from lamella.layers.oci.documents import Platform


MACHINES = {"amd64": "x86_64", "arm64": "aarch64", "arm": "armv7l", "386": "i686"}
"""Machine names of uname, by OCI's names."""


def unmet(
    found: Sequence[Distribution],
    prefix: Prefix,
    hashes: ContentCache,
    *,
    left_out: Sequence[Distribution] = (),
) -> list[Finding]:
    """One finding for each requirement that is missing (error) or out of range (warning).

    A requirement that one of `left_out` would meet is a note. Parsing a thousand requirements takes a
    tenth of a second: the answer is remembered for the same set of packages.
    """
    inputs = json.dumps(
        [
            prefix.python.version,
            str(prefix.python.platform),
            sorted(
                (
                    *(each.origin, each.name, each.version, each.build),
                    *(each.requires, each.constrains, each.requires_python),
                )
                for each in found
            ),
            sorted((each.origin, each.name) for each in left_out),
            conda_specs.available(),
        ]
    )
    question = "requirements " + hashlib.sha256(inputs.encode("utf-8", "surrogatepass")).hexdigest()
    subject = os.stat(os.path.realpath(prefix.executable))
    answer = hashes.answer(question, subject)
    if answer is None:
        findings = [*_pip(found, prefix.python, left_out), *_conda(found, left_out)]
        answer = json.dumps([[each.severity, each.kind, each.subject, each.message] for each in findings])
        hashes.remember_answer(question, subject, answer)
    return [Finding(*fields) for fields in json.loads(answer)]


def marker_environment(version: str, platform: Platform) -> dict[str, str]:
    """Return the values of a requirement's markers for Python `version` on `platform`, without an extra."""
    from packaging.markers import default_environment

    return {name: str(value) for name, value in default_environment().items()} | {
        "python_version": ".".join(version.split(".")[:2]),
        "python_full_version": version,
        "implementation_version": version,
        "platform_machine": MACHINES.get(platform.architecture, platform.architecture),
        "extra": "",
    }


def _pip(found: Iterable[Distribution], facts: InterpreterFacts, left_out: Iterable[Distribution]) -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    here = {normalised(each.name): each for each in found if each.origin != "conda" or not each.files}
    # A conda package may stand for a distribution of its name, or contain one of another name.
    here |= {normalised(each.name): each for each in found if normalised(each.name) not in here}
    dropped = {normalised(each.name) for each in left_out} - here.keys()
    environment = marker_environment(facts.version, facts.platform)
    for each in found:
        if each.origin == "conda":
            continue
        who = f"{each.name} {each.version}"
        try:
            if each.requires_python and not SpecifierSet(each.requires_python).contains(
                facts.version, prereleases=True
            ):
                message = f"{who} requires Python {each.requires_python}, but this is {facts.version}"
                yield Finding("warning", "requires", each.name, message)
        except InvalidSpecifier:
            pass  # as in pip: an invalid requirement requires nothing
        for text in each.requires:
            try:
                wanted = Requirement(text)
            except InvalidRequirement:
                continue
            if wanted.marker and not wanted.marker.evaluate(environment):
                continue
            has = here.get(normalised(wanted.name))
            if normalised(wanted.name) in dropped:
                message = f"{who} requires {wanted.name}{wanted.specifier}, which is left out on request"
                yield Finding("note", "requires", each.name, message)
            elif has is None:
                message = f"{who} requires {wanted.name}{wanted.specifier}, which is not installed; install it"
                yield Finding("error", "requires", each.name, message)
            elif not _within(wanted.specifier, has.version):
                message = f"{who} requires {wanted.name}{wanted.specifier}, but {has.version} is installed"
                yield Finding("warning", "requires", each.name, message)


def _within(specifier: object, version: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import InvalidVersion

    assert isinstance(specifier, SpecifierSet)
    try:
        return specifier.contains(version, prereleases=True)
    except InvalidVersion:
        return True  # a version from before PEP 440 cannot be compared


def _conda(found: Iterable[Distribution], left_out: Iterable[Distribution]) -> Iterator[Finding]:
    dropped = {each.name for each in left_out if each.origin == "conda"}
    packages = {each.name: each for each in found if each.origin == "conda"}
    fits = conda_specs.fits if conda_specs.available() else None
    for each in packages.values():
        for text in each.requires:
            name = conda_specs.name(text)
            if not name or name.startswith("__"):
                continue  # a virtual package of the system: see `needs` for the demands on nodes
            has = packages.get(name)
            if name in dropped:
                message = f"{each.name} {each.version} depends on {text}, which is left out on request"
                yield Finding("note", "requires", each.name, message)
            elif has is None:
                message = f"{each.name} {each.version} depends on {text}, which is not installed; install it"
                yield Finding("error", "requires", each.name, message)
            elif fits and not fits(text, has):
                version = f"{has.name} {has.version} {has.build}".rstrip()
                message = (
                    f"{each.name} {each.version} depends on {text}, but {version} is installed; update one of them"
                )
                yield Finding("warning", "inconsistent", each.name, message)
        for text in each.constrains:
            has = packages.get(conda_specs.name(text))
            if has is not None and fits and not fits(text, has):
                version = f"{has.name} {has.version} {has.build}".rstrip()
                message = (
                    f"{each.name} {each.version} constrains {text}, but {version} is installed; update one of them"
                )
                yield Finding("warning", "inconsistent", each.name, message)
