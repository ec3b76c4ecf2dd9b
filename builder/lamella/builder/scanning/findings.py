"""What the user should know of files that no package owns, of those that must not ship, and what forbids a push."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import TYPE_CHECKING

from lamella.builder.content.entry import Rewritten, measured
from lamella.builder.environment import LeftOut
from lamella.builder.errors import CannotBuild
from lamella.builder.files import elf
from lamella.builder.files.secrets import REASONS, secret
from lamella.builder.installed.distributions import normalised
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lamella.builder.environment import Environment, Package
    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.interpreter import Facts, Prefix
    from lamella.builder.prefix.places import Place
    from lamella.builder.prefix.walk import FoundFile
    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Severity

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# pip's AdjacentTempDirectory: the first letters of a name become tildes and others.
_RENAMED = re.compile(r"lib/python[\d.]+/(?:site|dist)-packages/~")


def without_secrets(entries: Iterable[FoundFile]) -> tuple[list[FoundFile], list[LeftOut]]:
    """Those of `entries`, which no index's package owns, that may ship; and the others."""
    kept: list[FoundFile] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        reason = secret(entry.path, entry.path.rpartition("/")[2], entry.source) or _leftover(entry.path)
        if reason is None:
            kept.append(entry)
        else:
            left_out.append(LeftOut(entry.path, reason))
    return kept, left_out


def _leftover(path: str) -> str | None:
    """Why a file is what an installer left behind; None where it is not. Both kinds hold URLs with credentials."""
    if path.startswith("conda-meta/") and path.endswith(".json"):
        return "a record of conda's that counts for no package"
    if _RENAMED.match(path):
        return "renamed by pip to be removed, and not removed"
    return None


def secrets(left_out: Iterable[LeftOut]) -> list[Finding]:
    """One finding for each file that is left out because it holds credentials."""
    hidden = sorted((item for item in left_out if item.reason in REASONS), key=lambda item: item.path)
    return [
        Finding("warning", "secret", item.path, f"{item.path} does not ship: it is {item.reason}") for item in hidden
    ]


def unowned(entries: Iterable[FoundFile], site: str) -> list[Finding]:
    """One finding for each module or folder that no package owns."""
    tops: Counter[str] = Counter()
    for entry in entries:
        if entry.path.startswith(site + "/"):
            tops[f"{site}/{entry.path[len(site) + 1 :].partition('/')[0]}"] += 1
        else:
            tops["/".join(entry.path.split("/")[:2])] += 1
    return [
        Finding(
            "warning" if top.startswith(site + "/") else "note",
            "unowned",
            top,
            f"{top}{f' ({count} files)' if count > 1 else ''} belongs to no package: it ships with the unowned files",
        )
        for top, count in sorted(tops.items())
    ]


def unrewritten(packages: Iterable[Package], prefix: str, image_prefix: str) -> list[Finding]:
    """One finding for each file that holds the environment's prefix where nothing can put the image prefix in its place."""
    return [
        Finding(
            "warning",
            "prefix",
            package.name,
            f"{file.path} has {prefix} compiled in, which only a conda package's placeholder makes room to rewrite: "
            f"what it looks for there it won't find at {image_prefix}",
        )
        for package in packages
        # The interpreter finds its own folders, wherever it was built for; byte code names its source for tracebacks alone.
        if package.origin not in ("conda", "python", "system")
        for file in package.files
        if file.holds == "binary" and not file.path.endswith(".pyc")
    ]


def cramped(packages: Iterable[Package], prefixes: tuple[bytes, ...], image_prefix: str) -> list[Finding]:
    """One finding for each file of a conda package in which the image prefix has no room. Reads files only where it is
    longer than the prefix that they hold now.
    """
    if not prefixes or len(os.fsencode(image_prefix)) <= min(map(len, prefixes)):
        return []
    found = []
    for package in packages:
        for file in package.files if package.origin == "conda" else ():
            if file.holds == "binary":
                try:
                    measured(Rewritten(file, prefixes, image_prefix, "binary", padded=True))
                except CannotBuild as error:
                    message = str(error).replace(file.source, file.path, 1)
                    found.append(Finding("error", "prefix", package.name, message))
    return found


def unnamable(packages: Iterable[Package]) -> list[Finding]:
    """One finding for each file whose name OCI has no way to say: a push of it is refused."""
    return [
        Finding(
            "error",
            "name",
            package.name,
            f"{file.path} can't be in an image, where names that begin with '.wh.' mean deletion: rename it or leave it out",
        )
        for package in packages
        for file in package.files
        if "/.wh." in file.path or file.path.startswith(".wh.")
    ]


def outside(owned: Iterable[FoundFile], places: Sequence[Place]) -> list[Finding]:
    """One finding for each file that a link to a place outside of the environment stands for."""
    return [
        Finding(
            "note",
            "links",
            entry.path,
            f"{entry.path} leads to {entry.source}, outside of the environment: what is there ships in its place",
        )
        for entry in owned
        if entry.target is None and not any(place.holds(entry.source) for place in places)
    ]


def unloadable(entries: Iterable[FoundFile], contents: Mapping[str, FileContent], platform: Platform) -> list[Finding]:
    """A finding for each compiled file among `entries` that `platform` can't load."""
    findings = []
    for entry in entries:
        loaded = contents[entry.source].elf if entry.target is None else ""
        machine = elf.Elf.load(loaded).machine if loaded else ""
        if machine not in ("", platform.architecture):
            message = f"{entry.path} is built for {machine}, and the environment is for {platform}: it can't be loaded"
            findings.append(Finding("warning", "machine", entry.path, f"{message}; ship a wheel for that platform"))
    return findings


def uncompiled(facts: Facts) -> list[Finding]:
    """A finding where no Python is here that compiles the modules."""
    if facts.compiler:
        return []
    message = (
        f"no Python {facts.short} is here to compile for {facts.platform}: modules ship as source, and nodes compile "
        f"them at every import; install python{facts.short}"
    )
    return [Finding("warning", "compiler", "python", message)]


def made_for(prefix: Prefix) -> list[Finding]:
    """What the venv says of the Python that it was made for, where its interpreter is another one by now."""
    configuration = prefix.configuration
    said = configuration.get("version_info") or configuration.get("version", "")
    short = ".".join(said.split(".")[:2])
    if prefix.kind != "venv" or not short or short == prefix.python.short:
        return []
    message = (
        f"{prefix.path} was made for Python {short}, and its interpreter is {prefix.python.version} by now: nothing of "
        f"lib/python{short} is imported; make the environment anew"
    )
    return [Finding("error", "interpreter", "python", message)]


def blocking_findings(
    environment: Environment, fail_on: Severity | None = None, strict: Collection[str] = ()
) -> list[Finding]:
    """The findings that forbid a push: all from `fail_on` up, any warning or error of a package of `strict`, and one for
    each of those that is not there.
    """
    worst = _SEVERITIES[: _SEVERITIES.index(fail_on) + 1] if fail_on else ()
    names = {normalised(name): name for name in strict}
    wanted = [package for package in environment.packages if normalised(package.name) in names]
    here = {normalised(package.name) for package in wanted}
    paths = {file.path for package in wanted for file in package.files}
    absent = [
        Finding("error", "strict", name, f"{names[name]} must ship, and is not in the environment: install it")
        for name in sorted(names.keys() - here)
    ]
    return absent + [
        finding
        for finding in environment.findings
        if finding.severity in worst
        or (finding.severity != "note" and (normalised(finding.subject) in here or finding.subject in paths))
    ]
