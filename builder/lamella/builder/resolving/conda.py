"""Resolve and install conda packages for another platform, with rattler; nothing of them runs.

Packages that a user asked for are wanted; the others only constrain the versions of their dependencies, so that
those of one system (`libcxx`, `vc`) give way to the target's. Sources: rattler's `solve`, conda's "Managing virtual packages".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import CannotResolve
from lamella.builder.installed.conda_specs import name as spec_name
from lamella.builder.resolving.model import Artifact, Moved, Resolution
from lamella.builder.resolving.one_system import is_of_one_system
from lamella.builder.resolving.rattler_process import rattler_process
from lamella.builder.urls import text_without_credentials, without_credentials
from lamella.layers.progress.display import Silent
from lamella.layers.published.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from lamella.builder.resolving.model import (
        InstalledCondaPackage,
        InstalledPackages,
        Match,
        ResolveOptions,
        Target,
    )
    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress.display import Progress

TASK = "install"
_SILENT = Silent()
_SUBDIRS = {"amd64": "linux-64", "arm64": "linux-aarch64", "ppc64le": "linux-ppc64le", "s390x": "linux-s390x"}
_ARCHSPEC = {"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "s390x": "s390x"}
_KERNEL = "4.18"
"""Linux of the oldest systems with glibc 2.28, the default."""
_Spread = dict[str, "Match"]
"""How far each package's version may be from the installed one."""


def subdir_of(platform: Platform) -> str:
    """conda's name of a platform, such as `linux-64`. Raises `CannotResolve` if it has none."""
    found = _SUBDIRS.get(platform.architecture) if platform.os == "linux" else None
    if not found:
        raise CannotResolve(
            f"--platform {platform}: conda has no such platform; use linux/amd64 or linux/arm64", code="invalid"
        )
    return found


def resolve_conda(
    installed: InstalledPackages,
    target: Target,
    options: ResolveOptions,
    *,
    channels: Sequence[str] = (),
    pixi_lock: str = "",
) -> Resolution:
    """Resolve the conda packages of `installed` for `target`; nothing is downloaded but the channels' indexes.

    `channels`: URLs in order of priority, with credentials if needed, of which those that packages came from are used;
    by default those of the packages' records. `pixi_lock`: path of a lock whose builds are preferred, if it agrees with
    the installed versions. Raises `CannotResolve`, which names every package that the target lacks.
    """
    subdir = subdir_of(target.platform)
    asked = _channels(installed.conda, channels)
    with rattler_process() as rattler:
        versions = {each.name: each.version for each in installed.conda}
        origins = {each.name: each.channel.rstrip("/") for each in installed.conda if "://" in each.channel}
        found = rattler.ask("candidates", channels=asked, subdir=subdir, versions=versions, origins=origins)
        locked = rattler.ask("locked", path=pixi_lock, subdir=subdir) if pixi_lock else {}
        credentials = {without_credentials(url).rstrip("/"): url for url in asked}
        plan = _Plan(
            installed, options, subdir, found, locked, {name: credentials[url] for name, url in origins.items()}
        )
        plan.check()
        solved = rattler.ask(
            "solve", channels=asked, subdir=subdir, attempts=plan.attempts(), virtual=virtual_packages(target)
        )
    if solved["attempt"] < 0:
        reason = text_without_credentials(" ".join(solved["reason"].split()))
        raise CannotResolve(
            f"{subdir}: the installed conda packages don't fit together there; use --match minor or --match none, "
            f"or install other versions: {without_lines(reason)}"
        )
    records = sorted(solved["records"], key=lambda each: each["name"])
    python = next((each["version"] for each in records if each["name"] == "python"), target.python)
    return Resolution(
        replace(target, python=python),
        tuple(_artifact(each) for each in records),
        moved=tuple(plan.moved(records)),
        findings=tuple(plan.findings(records)),
    )


def install_conda(
    resolution: Resolution,
    prefix: str,
    *,
    channels: Sequence[str] = (),
    requested: Sequence[str] = (),
    progress: Progress = _SILENT,
) -> None:
    """Download and install the conda packages of `resolution` in `prefix`, which has then no others.

    Incremental: packages that are there stay. Files are copies or reflinks of those in rattler's package cache, which
    other tools share. Hashes are checked, and no link scripts run. `channels` as in
    `resolve_conda`. `requested`: specifications that a user asked for, for the records. Raises `CannotResolve`; then the prefix may be incomplete.
    """
    known = {without_credentials(url).rstrip("/"): url for url in channels}
    packages = [
        {"channel": known.get(each.index, each.index), "name": each.name, "url": each.url, "sha256": each.sha256}
        for each in resolution.artifacts
        if each.kind == "conda"
    ]
    os.makedirs(prefix, exist_ok=True)
    names = {each["name"] for each in packages}
    kept = [spec for spec in requested if spec_name(spec) in names]
    progress.begin(TASK, len(packages), "packages")
    try:
        with rattler_process() as rattler:
            rattler.ask(
                "install",
                lambda count: progress.advance(TASK, count),
                packages=packages,
                prefix=prefix,
                subdir=subdir_of(resolution.target.platform),
                requested=kept,
            )
    finally:
        progress.end(TASK)


def virtual_packages(target: Target) -> dict[str, tuple[str, str]]:
    """Version and build of the target's virtual packages, by name."""
    found = {
        "__unix": ("0", "0"),
        "__linux": (_KERNEL, "0"),
        "__glibc": (target.glibc, "0"),
        "__archspec": ("1", _ARCHSPEC.get(target.platform.architecture, "0")),
    }
    return found | {"__cuda": (target.cuda, "0")} if target.cuda else found


def without_lines(text: str) -> str:
    """A solver's explanation, cut to a readable length."""
    return text if len(text) <= 600 else f"{text[:600]}…"


def _channels(packages: Sequence[InstalledCondaPackage], configured: Sequence[str]) -> list[str]:
    """Channels that packages came from, configured ones first, then those of most packages."""
    counts: dict[str, int] = {}
    for each in packages:
        if "://" in each.channel:
            counts[each.channel.rstrip("/")] = counts.get(each.channel.rstrip("/"), 0) + 1
    known = {without_credentials(url).rstrip("/"): url for url in configured}
    ordered = [url for url in known if url in counts]
    ordered += sorted(counts.keys() - known.keys(), key=lambda url: (-counts[url], url))
    if not ordered:
        raise CannotResolve("the conda packages' records name no channel; reinstall one with conda or pixi")
    return [known.get(url, url) for url in ordered]


def _artifact(record: Mapping[str, Any]) -> Artifact:
    return Artifact(
        "conda",
        record["name"],
        record["version"],
        without_credentials(record["url"]),
        record["sha256"],
        record["size"],
        without_credentials(record["channel"]),
        record["build"],
    )


def _of_channel(spec: str, channel: str | None) -> str:
    return f"{spec}[channel='{channel}']" if channel else spec


def _is_rebuilt(package: InstalledCondaPackage, record: Mapping[str, Any]) -> bool:
    """Whether `record` is another build of the same version for the same platform."""
    same = (package.subdir, package.version) == (record["subdir"], record["version"])
    return same and package.build != record["build"]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Attempts to solve, from the strictest to the loosest allowed."""

    installed: InstalledPackages
    options: ResolveOptions
    subdir: str
    found: Mapping[str, Mapping[str, Any]]
    """Builds for the target, by name; see the worker."""
    locked: Mapping[str, Sequence[str]]
    origins: Mapping[str, str]
    """Channel of each package, as it is asked: another one must not replace a package by its own."""
    wanted: frozenset[str] = field(init=False)
    """Packages that a user asked for; all of them if no record has that."""

    def __post_init__(self) -> None:
        packages = self.installed.conda
        asked = {each.name for each in packages if each.requested} or {each.name for each in packages}
        object.__setattr__(self, "wanted", frozenset({*asked, "python"} & {each.name for each in packages}))

    @property
    def match(self) -> Match:
        return self.options.match or ("exact" if self.installed.system == "linux" else "minor")

    def check(self) -> None:
        """Raise `CannotResolve` with every wanted package that the target lacks."""
        lacking = [each for each in self.installed.conda if each.name in self.wanted and self._lacks(each)]
        if lacking:
            named = ", ".join(f"{each.name} {each.version}" for each in lacking)
            loose = [each for each in lacking if self.found[each.name]["newest"]]
            remedy = "use --match minor or --match none" if loose else "remove"
            remedy = (
                remedy if loose else f"{remedy} {'it' if len(lacking) == 1 else 'them'}, or build for {self.subdir}"
            )
            raise CannotResolve(f"{named}: no build for {self.subdir} in the packages' channels; {remedy}")

    def _lacks(self, package: InstalledCondaPackage) -> bool:
        found, level = self.found[package.name], self._level(package.name)
        if not found["newest"]:
            return self.installed.system == "linux" or bool(found["elsewhere"]) or not is_of_one_system(package)
        return not (found["exact"] or (level != "exact" and found["near"]) or level == "none")

    def _level(self, name: str) -> Match:
        return "exact" if name in self.options.exact else self.match

    def attempts(self) -> list[dict[str, Any]]:
        """Specifications, constraints and preferred builds of each attempt."""
        exact: _Spread = {each.name: "exact" for each in self.installed.conda}
        others: _Spread = {name: exact[name] if name in self.wanted else self._level(name) for name in exact}
        everything: _Spread = {name: self._level(name) for name in exact}
        spreads = [exact, others, everything]
        strict = [self._attempt(exact, builds=True)] if self._same_subdir else []
        attempts = strict + [self._attempt(spread) for spread in spreads]
        return [each for number, each in enumerate(attempts) if each not in attempts[:number]]

    @property
    def _same_subdir(self) -> bool:
        return any(each.subdir == self.subdir for each in self.installed.conda)

    def _attempt(self, spread: _Spread, *, builds: bool = False) -> dict[str, Any]:
        specs, constraints, preferred = [], [], []
        for package in self.installed.conda:
            found = self.found[package.name]
            spec = self._spec(package, spread[package.name], build=builds)
            if not found["newest"]:
                continue
            origin = self.origins.get(package.name)
            if package.name in self.wanted:
                specs.append(_of_channel(spec, origin))
            elif origin or spec != package.name:
                constraints.append(_of_channel(spec, origin))
            if build := self._preferred(package):
                preferred.append(build["url"])
        return {
            "specs": specs,
            "constraints": constraints,
            "preferred": preferred,
            "names": [each.name for each in self.installed.conda],
        }

    def _spec(self, package: InstalledCondaPackage, spread: Match, *, build: bool) -> str:
        name, found, level = package.name, self.found[package.name], self._level(package.name)
        if found["exact"] and spread == "exact":
            same = any(each["build"] == package.build for each in found["exact"])
            return f"{name} =={package.version} {package.build}" if build and same else f"{name} =={package.version}"
        if found["near"] and level != "exact" and spread != "none":
            return f"{name} {'.'.join(package.version.split('.')[:2])}.*"
        if name in self.wanted and level == "exact":
            return f"{name} =={package.version}"
        return name

    def _preferred(self, package: InstalledCondaPackage) -> dict[str, Any] | None:
        """The build to prefer: the installed one, else the lock's, else any of the version, else the nearest."""
        found: Mapping[str, Any] = self.found[package.name]
        version, url = self.locked.get(package.name, ("", ""))
        exact = sorted(
            found["exact"],
            key=lambda each: (each["build"] != package.build, version != package.version or each["url"] != url),
        )
        return next(iter([*exact, *found["near"], *found["newest"]]), None)

    def moved(self, records: Sequence[Mapping[str, Any]]) -> Iterator[Moved]:
        """Packages that differ from the installed ones, by name."""
        solved = {each["name"]: each["version"] for each in records}
        versions = {each.name: each.version for each in self.installed.conda}
        for name in sorted(solved.keys() | versions.keys()):
            here, there = versions.get(name, ""), solved.get(name, "")
            if here == there:
                continue
            found = self.found.get(name, {})
            if not here:
                yield Moved(name, "added", "", there, f"needed on {self.subdir}")
            elif there:
                reason = "other packages need it" if found["exact"] else f"no build of {here} for {self.subdir}"
                yield Moved(name, "moved", here, there, reason)
            else:
                alone = f"not built for {self.subdir}"
                yield Moved(name, "dropped", here, "", f"not needed on {self.subdir}" if found["newest"] else alone)

    def findings(self, records: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
        """Findings about packages without hashes, other builds of installed ones, and wanted ones that are dropped."""
        solved = {each["name"]: each for each in records}
        for name, record in sorted(solved.items()):
            if not record["sha256"]:
                yield Finding("warning", "unverified", name, f"{name}: its channel states no sha256; not verified")
        for package in self.installed.conda:
            there = solved.get(package.name)
            if package.requested and not there:
                message = f"{package.name}: asked for, and left out, since it is not built for {self.subdir}"
                yield Finding("warning", "dropped", package.name, message)
            elif there and _is_rebuilt(package, there):
                message = f"{package.name} {package.version}: build {there['build']} in place of {package.build}"
                yield Finding("note", "build", package.name, message)
