"""Make a prefix for another platform on this disk, with the packages that an environment has: resolve, download, lay out.

The prefix is kept in the cache, one for each environment and target, so that the next push changes only what changed. Nothing
of it runs: a scan reads it as any environment for another machine.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamella.builder.cache_folder import STATE, TARGETS, cache_folder, cannot_write
from lamella.builder.content.metadata import DIRECT_URL
from lamella.builder.errors import BuilderError
from lamella.builder.files.small_file import read_json, read_small
from lamella.builder.indexes.conda_settings import conda_channels
from lamella.builder.indexes.configured import configured_indexes, project_folder
from lamella.builder.installed.distributions import normalised
from lamella.builder.prefix.foreign import companion
from lamella.builder.prefix.locate import locate
from lamella.builder.prefix.systems import System, system_of
from lamella.builder.resolving.conda import install_conda, resolve_conda
from lamella.builder.resolving.fetch import digest_of, fetch
from lamella.builder.resolving.file_lock import exclusive
from lamella.builder.resolving.installed_packages import installed_packages
from lamella.builder.resolving.installed_wheels import packed
from lamella.builder.resolving.locks import lock_document, locked, outdated
from lamella.builder.resolving.merged_files import merged_files
from lamella.builder.resolving.model import ResolveOptions, Target
from lamella.builder.resolving.pixi_lock import NAME as PIXI_LOCK
from lamella.builder.resolving.pixi_lock import pixi_lock
from lamella.builder.resolving.pointers import place_pointers, remove_placed
from lamella.builder.resolving.pypi import resolve_distributions
from lamella.builder.resolving.python_sources import named_digest
from lamella.builder.resolving.sources import is_source
from lamella.builder.resolving.target_python import lacks_libraries, place_python
from lamella.builder.resolving.target_tags import target_markers
from lamella.builder.resolving.wheels import Wheel, install_wheels
from lamella.builder.scanning.findings import at_least
from lamella.builder.scanning.scan import scan
from lamella.layers.hardening.permissions import make_folders
from lamella.layers.progress.display import shown
from lamella.layers.published.findings import Finding
from lamella.layers.settings.trust import Trust
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lamella.builder.environment import Environment
    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.model import InstalledPackages, Moved, Resolution
    from lamella.builder.scanning.options import ScanOptions
    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress.display import Progress
    from lamella.layers.published.findings import Severity

_TASK = "resolving"
_NAMED = 8
"""Packages of an index that a finding names."""
PYLOCK = "pylock.toml"
_FORMAT = 2
"""Of the layout of a target's folder: raise it with any change, and each is made anew."""


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """What an environment becomes for a platform, before anything is downloaded."""

    installed: InstalledPackages
    resolution: Resolution
    options: ResolveOptions
    indexes: Indexes = field(repr=False)
    channels: tuple[str, ...] = field(default=(), repr=False)
    """URLs of conda channels, with credentials."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Findings that are known before a download; laying out the environment adds others."""
        moved = (_finding(each, self.resolution.target.platform) for each in self.resolution.moved)
        return (*self.installed.findings, *self.resolution.findings, *moved)

    def blocking_findings(self, fail_on: Severity | None = None, strict: Collection[str] = ()) -> list[Finding]:
        """Findings that block a push of it, as `blocking_findings` does for an environment.

        A package in `strict` blocks if it is left out. One that is missing is known when the environment is laid out.
        """
        names = {normalised(name) for name in strict}
        dropped = {normalised(each.name) for each in self.resolution.moved if each.change == "dropped"}
        worst = at_least(fail_on)
        return [
            each
            for each in self.findings
            if each.severity in worst
            or (normalised(each.subject) in names and (each.severity != "note" or normalised(each.subject) in dropped))
        ]


def needs_resolving(prefix: str, platform: Platform, here: System | None = None) -> bool:
    """Whether the environment at `prefix` is for another platform than `platform`, variants aside.

    Raises `NotAnEnvironment` for a folder without a Python.
    """
    system = system_of(os.path.realpath(locate(prefix).executable), here or System.here())
    return (system.name, system.architecture) != (platform.os, platform.architecture)


def resolve(
    prefix: str,
    platform: Platform,
    options: ResolveOptions = ResolveOptions(),
    *,
    here: System | None = None,
    progress: Progress | None = None,
) -> TargetPlan:
    """Resolve the packages of the environment at `prefix` for `platform`. Downloads nothing but indexes' pages.

    `here` is the system of this process, detected by default. Raises `NotAnEnvironment`, and `BuilderError` that names
    every package that `platform` cannot have.
    """
    if platform.os != "linux":
        raise BuilderError(f"--platform {platform}: nodes run Linux; name linux/amd64 or linux/arm64", code="invalid")
    with shown(progress) as bars:
        installed = installed_packages(prefix, here)
        options = replace(options, match=options.match or ("exact" if installed.system == "linux" else "minor"))
        target = Target(platform, installed.python, options.glibc, options.cuda)
        project = project_folder(installed.prefix)
        metadata = [each.folder for each in installed.pypi]
        indexes = configured_indexes(project, installed.prefix, metadata=metadata, markers=target_markers(target))
        channels = conda_channels(project, installed.prefix) if installed.conda else ()
        bars.begin(_TASK, 1, "environments")
        conda = None
        if installed.conda:
            lock = os.path.join(project, PIXI_LOCK)
            preferred = lock if os.path.isfile(lock) else ""
            conda = resolve_conda(installed, target, options, channels=channels, pixi_lock=preferred)
        if conda:
            target = conda.target
        locks = locked(project, installed)
        resolved = resolve_distributions(installed, target, options, indexes, locks=locks)
        resolution = _with_installed_files(
            installed,
            replace(resolved, findings=(*indexes.findings, *outdated(project, installed), *resolved.findings)),
        )
        if conda:
            resolution = _joined(conda, resolution)
        resolution = replace(resolution, findings=(*resolution.findings, *_origin_findings(resolution)))
        bars.advance(_TASK, 1)
        bars.end(_TASK)
    return TargetPlan(installed, resolution, options, indexes, channels)


def _origin_findings(resolution: Resolution) -> Iterator[Finding]:
    """A note for each index and channel that packages come from, unless there is one of the kind."""
    origins: dict[tuple[str, str], list[str]] = {}
    for each in resolution.artifacts:
        if each.index:
            origins.setdefault((each.kind, each.index), []).append(each.name)
    for (kind, index), names in sorted(origins.items()):
        if sum(1 for other, _ in origins if other == kind) > 1:
            rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            message = f"{counted(len(names), 'package')} from {index}: {', '.join(names[:_NAMED])}{rest}"
            yield Finding("note", "index", index, message)


def _joined(conda: Resolution, pypi: Resolution) -> Resolution:
    return replace(
        pypi,
        artifacts=tuple(sorted((*conda.artifacts, *pypi.artifacts), key=lambda each: (each.kind, each.name))),
        moved=tuple(sorted((*conda.moved, *pypi.moved), key=lambda each: each.name)),
        findings=tuple(dict.fromkeys((*conda.findings, *pypi.findings))),
    )


def _with_installed_files(installed: InstalledPackages, resolution: Resolution) -> Resolution:
    """Take the installed files of pure distributions that no index has a wheel of: nothing is built twice."""
    pure = {each.name: each for each in installed.pypi if each.pure and each.folder}
    kept = {
        artifact.name
        for artifact in resolution.artifacts
        if (found := pure.get(artifact.name))
        and found.version == artifact.version
        and (is_source(artifact) or artifact.url.startswith("file:"))
    }
    local = {each.name: each.local for each in pure.values() if each.local in resolution.projects}
    # Two distributions may come from one folder: it is built if one of them has to be.
    built = {each.local for each in installed.pypi if each.local and each.name not in pure}
    return replace(
        resolution,
        artifacts=tuple(each for each in resolution.artifacts if each.name not in kept),
        projects=tuple(each for each in resolution.projects if each in built or each not in local.values()),
        kept=tuple(sorted({*resolution.kept, *kept, *local})),
        # A file that is not downloaded needs no hash.
        findings=tuple(each for each in resolution.findings if each.kind != "unverified" or each.subject not in kept),
    )


@contextlib.contextmanager
def target_environment(
    plan: TargetPlan,
    scan_options: ScanOptions,
    *,
    repository: str = "",
    trust: Trust = Trust(),
    progress: Progress | None = None,
) -> Iterator[Environment]:
    """Download and lay out what `plan` names, and yield it scanned. No other process changes its files in the block.

    `repository` is the reference that it will be pushed to, in which an interpreter for the target is looked for. Local
    projects ship as their wheels. Idempotent: what an earlier call laid out is kept. Raises `BuilderError` and `LayersError`.
    """
    cache = cache_folder(scan_options.cache)
    folder = _folder(plan, cache)
    with shown(progress) as bars, _locked(folder):
        placed = _laid_out(plan, folder, cache, _Reading(repository, trust, bars))
        located = locate(plan.installed.prefix)
        here = System.here()
        own = located.executable if system_of(os.path.realpath(located.executable), here) == here else ""
        scan_options = replace(
            scan_options,
            wheels=True,
            platform=plan.resolution.target.platform,
            companion=own or companion(_short(plan)),
        )
        environment = scan(placed.prefix, scan_options, progress=bars)
        findings = (*plan.findings, *placed.findings)
        locks = {PIXI_LOCK: pixi_lock(placed.prefix, environment.platform)} if plan.installed.conda else {}
        if placed.lock:
            locks[PYLOCK] = placed.lock
        yield replace(environment, findings=tuple(dict.fromkeys((*environment.findings, *findings))), locks=locks)


def _finding(moved: Moved, platform: Platform) -> Finding:
    if moved.change == "dropped":
        message = f"{moved.name} {moved.installed}: left out for {platform}: {moved.reason}"
    elif moved.change == "added":
        message = f"{moved.name} {moved.resolved}: added for {platform}: {moved.reason}"
    else:
        message = f"{moved.name} {moved.installed}: {moved.resolved} ships for {platform}: {moved.reason}"
    return Finding("warning" if moved.change == "moved" else "note", "platform", moved.name, message)


@dataclass(frozen=True, slots=True)
class _Placed:
    """A prefix that is laid out."""

    prefix: str
    findings: tuple[Finding, ...]
    lock: str
    """Text of pylock.toml; empty without wheels of an index."""


def _folder(plan: TargetPlan, cache: str) -> str:
    target = plan.resolution.target
    key = json.dumps([_FORMAT, os.path.realpath(plan.installed.prefix), target.platform.architecture, _short(plan)])
    return os.path.join(cache, TARGETS, hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32])


def _short(plan: TargetPlan) -> str:
    return ".".join(plan.resolution.target.python.split(".")[:2])


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Hold the folder of a target. Its lock is beside it, so that the folder can be removed under it."""
    try:
        make_folders(os.path.dirname(folder))
        lock = exclusive(f"{folder}.lock")
        lock.__enter__()
    except OSError as error:
        raise cannot_write(folder, "a prefix for another platform", error) from None
    with contextlib.ExitStack() as stack:
        stack.push(lock.__exit__)
        yield


@dataclass(frozen=True, slots=True)
class _Reading:
    """How an interpreter is read from a registry."""

    repository: str
    trust: Trust
    progress: Progress


def _laid_out(plan: TargetPlan, folder: str, cache: str, reading: _Reading) -> _Placed:
    resolution, progress = plan.resolution, reading.progress
    wheels = [each for each in resolution.artifacts if each.kind == "wheel"]
    fetched = fetch(wheels, resolution.target, plan.indexes, cache, progress)
    prefix = os.path.join(folder, "prefix")
    merged: tuple[Finding, ...] = ()
    state = os.path.join(folder, STATE)
    wanted = {"format": _FORMAT, "python": plan.options.python_from}
    try:
        known = _read(state)
        # A lay-out that was cut off may have left files that no state names, as a pointer to a project that is gone.
        if "incomplete" in known or {name: known.get(name) for name in wanted} != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            known = {}
        make_folders(prefix)
        _write(state, {**wanted, "incomplete": True})
        site = os.path.join(prefix, "lib", f"python{_short(plan)}", "site-packages")
        remove_placed(known.get("pointers", []), site)
        if plan.installed.conda:
            requested = [each.requested for each in plan.installed.conda if each.requested]
            install_conda(resolution, prefix, channels=plan.channels, requested=requested, progress=progress)
            merged = tuple(merged_files(prefix))
        packs = os.path.join(folder, "packed")
        kept = [packed(each, packs) for each in plan.installed.pypi if each.name in resolution.kept]
        direct = {each.name: each.folder for each in plan.installed.pypi if each.source}
        chosen = [Wheel(path, _origin(direct.get(each.name, ""))) for each, path in fetched.items()]
        install_wheels([*chosen, *kept], prefix, resolution.target.python, progress)
        if not plan.installed.conda:
            # After the wheels: it brings the system's libraries that they need.
            wheels_there = [[each.name, each.sha256 or path] for each, path in fetched.items()] + [
                [each] for each in kept
            ]
            known = _with_python(plan, prefix, known, wheels_there, reading)
        pointers = place_pointers(plan.installed, site, resolution.projects)
        _write(state, {**wanted, **known, "source": plan.installed.prefix, "pointers": pointers})
    except OSError as error:
        raise cannot_write(folder, "a prefix for another platform", error) from None
    hashed = {replace(each, sha256=digest_of(each, cache)): path for each, path in fetched.items()}
    lock = lock_document(replace(resolution, artifacts=tuple(hashed)), hashed).decode() if wheels else ""
    return _Placed(prefix, (*merged, *(Finding(*each) for each in known.get("findings", []))), lock)


def _with_python(
    plan: TargetPlan, prefix: str, known: dict[str, Any], wheels: list[list[str]], reading: _Reading
) -> dict[str, Any]:
    """Place the interpreter, unless it is there with the libraries that the wheels need; return the prefix's state."""
    target = plan.resolution.target
    key = [target.python, *sorted(wheels)]
    named = plan.options.python_from
    # A tag may name another image than at the last push, and the files of a folder may be others.
    digest = named_digest(named, reading.repository, reading.trust) if named else ""
    if known.get("digest", "") == digest and bool(digest) == bool(named):
        if known.get("placed_for") == key:
            return known
        if known.get("placed_for", [""])[0] == target.python and not lacks_libraries(prefix, {*known["libraries"]}):
            return {**known, "placed_for": key}
    python = place_python(
        prefix, target, plan.options, reading.repository, trust=reading.trust, progress=reading.progress
    )
    for path in {*known.get("files", [])} - {*python.files}:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(prefix, *path.split("/")))
    return {
        "placed_for": key,
        "digest": digest,
        "files": python.files,
        "libraries": python.libraries,
        "findings": [[each.severity, each.kind, each.subject, each.message] for each in python.findings],
    }


def _origin(folder: str) -> tuple[tuple[str, bytes], ...]:
    """The record of where a distribution came from, if it was not an index."""
    try:
        return ((DIRECT_URL, read_small(os.path.join(folder, DIRECT_URL))),) if folder else ()
    except OSError:
        return ()


def _read(path: str) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: str, value: dict[str, Any]) -> None:
    with open(f"{path}.partial", "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(f"{path}.partial", path)
