"""Findings of a scan about files, secrets, prefixes and the interpreter; which findings block a push."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from lamella.builder.content.names import refusal
from lamella.builder.environment import LeftOut
from lamella.builder.files import elf
from lamella.builder.files.private_keys import is_private_key
from lamella.builder.files.secrets import KEY, REASONS, secret
from lamella.builder.installed.distributions import normalised
from lamella.builder.layer.collisions import collisions
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lamella.builder.environment import Environment, Package
    from lamella.builder.files.read import FileContent
    from lamella.builder.prefix.interpreter import InterpreterFacts, Prefix
    from lamella.builder.prefix.places import Place
    from lamella.builder.prefix.walk import FoundFile
    from lamella.layers.oci.documents import Platform
    from lamella.layers.published.findings import Severity

_SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
# pip's AdjacentTempDirectory: the first letters of a name become tildes and others.
_RENAMED = re.compile(r"lib/python[\d.]+/(?:site|dist)-packages/~")


_EASY_INSTALL = "easy-install.pth"
"""Written by `setup.py install` for all eggs together, so no package records it."""
_DPKGS = "/usr/lib/python3/dist-packages/"
"""Debian's own modules, many of them without metadata. pip installs to /usr/local."""


def without_secrets(entries: Iterable[FoundFile]) -> tuple[list[FoundFile], list[LeftOut]]:
    """Split `entries`, owned by no published package, into those that may ship and those left out."""
    kept: list[FoundFile] = []
    left_out: list[LeftOut] = []
    for entry in entries:
        name = entry.path.rpartition("/")[2]
        reason = secret(entry.path, name, entry.source) or _leftover(entry.path)
        if reason is None and entry.target is None and is_private_key(name, entry.seen.st_size, entry.source):
            reason = KEY
        if reason is None:
            kept.append(entry)
        else:
            left_out.append(LeftOut(entry.path, reason))
    return kept, left_out


def _leftover(path: str) -> str | None:
    """Reason if an installer left the file behind, or None. Both kinds may hold URLs with credentials."""
    if path.startswith("conda-meta/") and path.endswith(".json"):
        return "a conda record of a package that is not installed"
    if _RENAMED.match(path):
        return "renamed by pip for removal, and left behind"
    return None


def secrets(left_out: Iterable[LeftOut]) -> list[Finding]:
    """One finding for each file that is left out because it may hold credentials."""
    hidden = sorted((item for item in left_out if item.reason in REASONS), key=lambda item: item.path)
    return [Finding("warning", "secret", item.path, f"{item.path}: left out, {item.reason}") for item in hidden]


def unowned(entries: Iterable[FoundFile], site: str) -> list[Finding]:
    """One finding for each module or folder that no package owns."""
    tops: Counter[str] = Counter()
    ours: set[str] = set()
    for entry in entries:
        if entry.path.startswith(site + "/"):
            top = f"{site}/{entry.path[len(site) + 1 :].partition('/')[0]}"
            tops[top] += 1
            if not entry.source.startswith(_DPKGS):
                ours.add(top)
        else:
            tops["/".join(entry.path.split("/")[:2])] += 1
    return [
        Finding(
            "warning" if top in ours - {f"{site}/{_EASY_INSTALL}"} else "note",
            "unowned",
            top,
            f"{top}{f' ({count} files)' if count > 1 else ''}: belongs to no package; ships with the unowned files",
        )
        for top, count in sorted(tops.items())
    ]


def unnamable(packages: Iterable[Package]) -> list[Finding]:
    """One finding for each file whose name an OCI layer cannot contain: a push of it is refused."""
    return [
        Finding(
            "error",
            "name",
            package.name,
            f"{file.path}: {problem}",
        )
        for package in packages
        for file in package.files
        if (problem := refusal(file.path))
    ]


def colliding(packages: Iterable[Package]) -> list[Finding]:
    """One finding for each path at which layers would collide: a push of them is refused."""
    return [Finding("error", "collision", each.owner.partition(" ")[0], str(each)) for each in collisions(packages)]


def outside(owned: Iterable[FoundFile], places: Sequence[Place]) -> list[Finding]:
    """One finding for each file that ships in place of a link to it from the environment."""
    return [
        Finding(
            "note",
            "links",
            entry.path,
            f"{entry.path}: ships as a copy of the file outside the environment that it links to, {entry.source}",
        )
        for entry in owned
        if entry.target is None and not any(place.holds(entry.source) for place in places)
    ]


def unloadable(entries: Iterable[FoundFile], contents: Mapping[str, FileContent], platform: Platform) -> list[Finding]:
    """One finding for each compiled file of `entries` that `platform` cannot load."""
    findings = []
    for entry in entries:
        loaded = contents[entry.source].elf if entry.target is None else ""
        machine = elf.Elf.load(loaded).machine if loaded else ""
        if machine not in ("", platform.architecture):
            message = f"{entry.path}: built for {machine}, cannot be loaded on {platform}"
            findings.append(Finding("warning", "machine", entry.path, f"{message}; ship a wheel for {platform}"))
    return findings


def uncompiled(facts: InterpreterFacts) -> list[Finding]:
    """A finding if this machine has no Python of the environment's version to compile modules."""
    if facts.compiler:
        return []
    message = (
        f"python{facts.short}: not found on this machine to compile modules for {facts.platform}; install it, or "
        "modules ship as source and nodes compile them at every import"
    )
    return [Finding("warning", "compiler", "python", message)]


def made_for(prefix: Prefix) -> list[Finding]:
    """A finding if the venv was made for another Python version than its interpreter has now."""
    configuration = prefix.configuration
    version = configuration.get("version_info") or configuration.get("version", "")
    short = ".".join(version.split(".")[:2])
    if prefix.kind != "venv" or not short or short == prefix.python.short:
        return []
    message = (
        f"{prefix.path}: made for Python {short}, but its interpreter is now {prefix.python.version}, which imports "
        f"nothing from lib/python{short}; make the environment again"
    )
    return [Finding("error", "interpreter", "python", message)]


def at_least(severity: Severity | None) -> tuple[Severity, ...]:
    """Return `severity` and those above; nothing for None."""
    return _SEVERITIES[: _SEVERITIES.index(severity) + 1] if severity else ()


def blocking_findings(
    environment: Environment, fail_on: Severity | None = None, strict: Collection[str] = ()
) -> list[Finding]:
    """Findings that block a push.

    All of severity `fail_on` and above, every warning and error of a package in `strict`, and one
    finding for each name in `strict` that the environment lacks.
    """
    worst = at_least(fail_on)
    names = {normalised(name): name for name in strict}
    wanted = [package for package in environment.packages if normalised(package.name) in names]
    here = {normalised(package.name) for package in wanted}
    paths = {file.path for package in wanted for file in package.files}
    absent = [
        Finding("error", "strict", name, f"{names[name]}: not in the environment, and must ship; install it")
        for name in sorted(names.keys() - here)
    ]
    return absent + [
        finding
        for finding in environment.findings
        if finding.severity in worst
        or (finding.severity != "note" and (normalised(finding.subject) in here or finding.subject in paths))
    ]
