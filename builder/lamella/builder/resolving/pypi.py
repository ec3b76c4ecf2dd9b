"""Resolve the installed pip distributions for a target: the same versions, or the nearest that it has.

1. What only the source's system requires falls away (`reachable`); local projects, repositories and archives are
   not looked for on an index.
2. uv, else pip, resolves the rest with every version pinned, and adds what the target needs besides.
3. If that fails, the indexes' pages say what each package has for the target (`offered`): each that cannot be had is
   loosened as far as `match` allows, dropped if it is of one system alone, or part of one refusal that names them all.
4. An environment that is inconsistent on its own system stays as it is: resolved without dependencies, with findings.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from lamella.builder.errors import BuilderError
from lamella.builder.indexes.client import IndexUnusable, LoginRefused
from lamella.builder.installed.distributions import normalised
from lamella.builder.resolving import by_pip, by_uv
from lamella.builder.resolving.consistency import Resolved, inconsistencies
from lamella.builder.resolving.locks import disagreements, with_locked_digest, with_locked_origins
from lamella.builder.resolving.model import Artifact, Moved, Resolution
from lamella.builder.resolving.offered import branch_range, offers
from lamella.builder.resolving.one_system import is_listed, names_other_systems
from lamella.builder.resolving.question import Question, Unsolvable, Wheel
from lamella.builder.resolving.reachable import applies, fallen_away, parsed
from lamella.builder.resolving.sources import direct_artifact, filename_in, is_from_index, is_repository
from lamella.builder.resolving.target_tags import is_for_linux, target_markers
from lamella.builder.urls import file_without_credentials
from lamella.layers.published.findings import Finding
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lamella.builder.indexes.model import Indexes
    from lamella.builder.indexes.pages import IndexFile
    from lamella.builder.resolving.locks import Locked
    from lamella.builder.resolving.model import (
        InstalledDistribution,
        InstalledPackages,
        Match,
        ResolveOptions,
        Target,
    )
    from lamella.builder.resolving.offered import Offer

_NAMED = 8
"""Packages that a message names."""
_BY_NAME = 6
"""Packages whose pages are asked for one after the other, as a resolver names them; then those of all."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """Questions for a resolver, and answers that need none."""

    pins: Mapping[str, str]
    """Specifier by name of what an index has: `==2.4.6`, `==2.4.*`, or empty."""
    sources: tuple[Artifact, ...] = ()
    """Source distributions, archives and repositories, whose wheels are made here."""
    moved: tuple[Moved, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a version may not be the installed one, by name."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """Who is asked, for what, and how strictly."""

    target: Target
    options: ResolveOptions
    indexes: Indexes
    resolver: str


class Refused(BuilderError):
    """Distributions that cannot be had for the target; the message names all of them."""


def resolve_distributions(
    installed: InstalledPackages,
    target: Target,
    options: ResolveOptions,
    indexes: Indexes,
    resolver: Literal["", "uv", "pip"] = "",
    *,
    locks: Mapping[str, Locked] | None = None,
) -> Resolution:
    """Resolve the pip distributions of `installed` for `target`; downloads nothing but metadata, builds nothing.

    `resolver`: empty for uv if it is here and knows the target, else pip. `locks`: see `locks.locked`; a package
    is looked for on the index that they name alone.

    Raises `Refused` with every package that cannot be had, and `IndexUnusable`.
    """
    exact = tuple(map(normalised, options.exact))
    options = replace(options, match=_match(installed, options), exact=exact)
    away = fallen_away(installed, target)
    away |= _listed(installed, away, target)
    configured = {each.url for each in indexes.indexes}
    indexes = with_locked_origins(indexes, locks or {})
    conda = {normalised(each.name): each.version for each in installed.conda}
    local = [each for each in installed.pypi if each.name not in away and _is_local(each)]
    direct = [
        each for each in installed.pypi if each.name not in away and not _is_local(each) and not is_from_index(each)
    ]
    asked = {
        each.name: each
        for each in installed.pypi
        if each.name not in away and is_from_index(each) and not _is_local(each)
    }
    moved = [
        Moved(name, "dropped", _version(installed, name), "", _only_here(installed, by)) for name, by in away.items()
    ]
    plan = _Plan(
        pins={name: f"=={each.version}" for name, each in asked.items()},
        sources=tuple(direct_artifact(each, target) for each in direct),
        moved=tuple(moved),
    )
    here = {each.name for each in (*local, *direct)}
    wheels, plan, findings = _solved(
        plan, installed, asked, here | conda.keys(), _Asking(target, options, indexes, resolver)
    )
    _check_places(wheels, indexes)
    by_name = {wheel.name: wheel for wheel in wheels}
    moved = [*plan.moved, *_moved(by_name, asked, plan)]
    findings += inconsistencies(
        _resolved(by_name, installed, plan), conda, [each.name for each in moved if each.change == "dropped"], target
    )
    findings += [
        Finding("warning", "yanked", each.name, f"{each.name} {each.version} is yanked; it ships since it is installed")
        for each in wheels
        if each.yanked
    ]
    findings += [
        Finding(
            "note", "index", each.name, f"{each.index} is named by {locks[each.name].lock}, and by no configuration"
        )
        for each in wheels
        if locks and each.name in locks and each.index and each.index not in configured
    ]
    findings += _of_other_systems(installed, target, {each.name for each in moved if each.change == "dropped"})
    chosen = [with_locked_digest(each, locks or {}) for each in (*map(_artifact, wheels), *plan.sources)]
    findings += [
        Finding("warning", "unverified", each.name, _unverified(each))
        for each in chosen
        if not each.sha256 and not is_repository(each) and not each.url.startswith("file:")
    ]
    findings += disagreements(chosen, locks or {})
    artifacts = sorted(chosen, key=lambda each: (each.kind, each.name))
    return Resolution(
        target=target,
        artifacts=tuple(artifacts),
        projects=tuple(sorted({each.local or _folder(each) for each in local})),
        moved=tuple(sorted(moved, key=lambda each: each.name)),
        findings=tuple(findings),
    )


def _solved(
    plan: _Plan,
    installed: InstalledPackages,
    asked: Mapping[str, InstalledDistribution],
    here: set[str],
    asking: _Asking,
) -> tuple[tuple[Wheel, ...], _Plan, list[Finding]]:
    """Wheels, the plan that they follow, and findings."""
    target, match, exact = asking.target, asking.options.match or "exact", asking.options.exact

    def ask(plan: _Plan, *, dependencies: bool) -> tuple[Wheel, ...]:
        made = {each.name for each in plan.sources}
        dropped = {each.name for each in plan.moved if each.change == "dropped"}
        question = Question(
            requirements=(
                *(f"{name}{specifier}" for name, specifier in sorted(plan.pins.items())),
                *_required_by(installed, here | made, plan, target),
            ),
            target=target,
            indexes=asking.indexes,
            preferred={name: asked[name].version for name in plan.pins},
            absent=frozenset(here | made | dropped),
            dependencies=dependencies,
        )
        if not question.requirements:
            return ()
        is_uv = asking.resolver == "uv" or (not asking.resolver and by_uv.serves(question))
        return _by_uv(question) if is_uv else by_pip.solve(question)

    tried: set[str] = set()
    while True:
        try:
            return ask(plan, dependencies=True), plan, []
        except Unsolvable as error:
            failed = error
        # Most often a few packages come as source alone: the pages of all the others would take seconds.
        named = [name for name in failed.names if name in plan.pins and name not in tried]
        if not named or len(tried) >= _BY_NAME:
            break
        tried.update(named)
        try:
            plan = _loosened(plan, asked, asking, named)
        except Refused:
            break  # with everything that cannot be had
    wheels = None
    if not any(name in plan.pins for name in failed.names):
        # Requirements exclude each other, or one that is not installed is missing: each package may be there for all that.
        with contextlib.suppress(Unsolvable):
            wheels = ask(plan, dependencies=False)
    if wheels is None:
        plan = _loosened(plan, asked, asking, plan.pins)
        try:
            return ask(plan, dependencies=True), plan, []
        except Unsolvable as error:
            failed = error
    if match != "exact":
        looser = {
            name: specifier if name in exact or not specifier else _allowed(asked[name].version, match)
            for name, specifier in plan.pins.items()
        }
        reasons = {**dict.fromkeys(looser, "another package of the target requires it"), **plan.reasons}
        try:
            loose = replace(plan, pins=looser, reasons=reasons)
            return ask(loose, dependencies=True), loose, []
        except Unsolvable:
            pass
    try:
        wheels = ask(plan, dependencies=False) if wheels is None else wheels
    except Unsolvable as error:
        raise Refused(
            f"{target.platform}: not all packages can be had: {error}{_required_of(error.names, installed)}; put the missing ones on an index, or install versions "
            "that fit together"
        ) from None
    message = f"not all requirements can be met on {target.platform}: {failed}; the packages ship as they are installed"
    return wheels, plan, [Finding("warning", "requires", installed.prefix, message)]


def _by_uv(question: Question) -> tuple[Wheel, ...]:
    try:
        return by_uv.solve(question)
    except LoginRefused:
        # For a file outside the paths of a server's indexes, uv takes the login of any of them.
        if not question.indexes.have_several_logins_on_a_server() or not by_pip.find_pip():
            raise
        return by_pip.solve(question)


def _required_of(names: Iterable[str], installed: InstalledPackages) -> str:
    """Names of the installed packages that require one of `names`, as the end of a clause."""
    wanted = set(names)
    found = [
        each.name
        for each in installed.pypi
        if any(normalised(requirement.name) in wanted for requirement in parsed(each.requires))
    ]
    return f" (required by {', '.join(found[:_NAMED])})" if found else ""


def _unverified(artifact: Artifact) -> str:
    if artifact.index:
        return f"{artifact.index} states no sha256 of {filename_in(artifact.url)}"
    return f"{artifact.url}: its installer recorded no sha256 of it"


def _of_other_systems(installed: InstalledPackages, target: Target, dropped: set[str]) -> Iterator[Finding]:
    """One finding for each package that ships though it states to be for other systems than the target's."""
    for each in installed.pypi if installed.system != target.platform.os else ():
        if each.name not in dropped and not each.local and names_other_systems(each.systems):
            message = (
                f"{each.name} {each.version}: its classifiers name {escaped(', '.join(each.systems), 200)} alone; it ships, since "
                f"it has no compiled code and no marker; use --ignore {each.name} to leave it out"
            )
            yield Finding("note", "platform", each.name, message)


def _check_places(wheels: Iterable[Wheel], indexes: Indexes) -> None:
    """Refuse a file of this machine that an index or page on a server led a resolver to."""
    for wheel in wheels:
        is_file = wheel.url.startswith("file:")
        if is_file and not wheel.index.startswith("file:") and not indexes.has_file(wheel.url):
            raise IndexUnusable(
                f"index {wheel.index}: package {wheel.name}: its page leads to a file of this machine, "
                f"{escaped(wheel.filename, 100)}; report it to the index's operator"
            )


def _loosened(plan: _Plan, asked: Mapping[str, InstalledDistribution], asking: _Asking, names: Iterable[str]) -> _Plan:
    """`plan` with what the indexes have in place of what they lack. Raises `Refused` with all that they lack."""
    target, match, exact = asking.target, asking.options.match or "exact", asking.options.exact
    found = offers(names, asking.indexes)
    if len(found) > 1 and not asking.indexes.find_links and not any(offer.files for offer in found.values()):
        places = ", ".join(each.url for each in asking.indexes.indexes) or "the configured indexes"
        raise IndexUnusable(f"index {places}: has none of {len(found)} installed packages; correct its URL")
    pins, sources, moved = dict(plan.pins), list(plan.sources), list(plan.moved)
    reasons, refused, shadowed = dict(plan.reasons), [], False
    for name, offer in found.items():
        version = asked[name].version
        if offer.wheel(version, target):
            continue
        if _is_of_one_system(offer) and not _is_required(name, asked.values(), target):
            del pins[name]
            moved.append(Moved(name, "dropped", version, "", f"no version for Linux on {offer.index}"))
            continue
        problem = offer.problem(version, target)
        allowed = "exact" if name in exact else match
        nearest = "" if allowed == "exact" else offer.nearest(version, target, minor=allowed == "minor")
        sdist = None if offer.has_linux_wheels(version) else offer.sdist(version)
        if sdist and not any(file.is_wheel for file in offer.of(version)):
            del pins[name]
            sources.append(_sdist(name, version, sdist, offer.index))
        elif nearest:
            pins[name] = f"=={nearest}"
            reasons[name] = problem
        else:
            refused.append(f"{escaped(name, 100)} {escaped(version, 60)}: {problem}")
            shadowed |= bool(offer.files) and not offer.of(version)
    if refused:
        is_first_only = asking.indexes.strategy == "first-index" and len(asking.indexes.indexes) > 1
        raise Refused(_refusal(refused, target, match, shadowed=shadowed and is_first_only))
    return replace(plan, pins=pins, sources=tuple(sources), moved=tuple(moved), reasons=reasons)


def _refusal(refused: list[str], target: Target, match: Match, *, shadowed: bool) -> str:
    hint = "; later indexes are not asked for what an earlier one has: UV_INDEX_STRATEGY=unsafe-best-match asks all"
    looser = {"exact": "--match minor, or ", "minor": "--match none, or ", "none": ""}[match]
    return (
        f"{target.platform}: {len(refused)} of the installed packages cannot be had: {'; '.join(refused)}; use {looser}"
        f"put their wheels on an index, or push from {target.platform}{hint if shadowed else ''}"
    )


def _match(installed: InstalledPackages, options: ResolveOptions) -> Match:
    return options.match or ("exact" if installed.system == "linux" else "minor")


def _allowed(version: str, match: Match) -> str:
    return branch_range(version) if match == "minor" else ""


def _is_local(each: InstalledDistribution) -> bool:
    return bool(each.local or each.editable)


def _folder(each: InstalledDistribution) -> str:
    return each.source.removeprefix("file://")


def _is_of_one_system(offer: Offer) -> bool:
    # pyobjc comes as source too, which cannot be built on Linux.
    listed = is_listed(offer.name) and any(file.is_wheel for file in offer.files)
    return offer.is_of_one_system() or (
        listed and not any(file.is_wheel and is_for_linux(file.filename) for file in offer.files)
    )


def _is_required(name: str, asked: Iterable[InstalledDistribution], target: Target) -> bool:
    """Whether a package that may run on `target` requires `name` there."""
    markers = target_markers(target)
    return any(
        normalised(requirement.name) == name and applies(requirement, markers)
        for each in asked
        if not is_listed(each.name)
        for requirement in parsed(each.requires)
    )


def _listed(installed: InstalledPackages, away: Mapping[str, str], target: Target) -> dict[str, str]:
    """Packages of one system by their nature that nothing requires on the target, whatever files an index has of them."""
    rest = [each for each in installed.pypi if each.name not in away]
    here = [each for each in rest if is_listed(each.name)] if installed.system != target.platform.os else []
    return {each.name: "" for each in here if not _is_required(each.name, rest, target)}


def _required_by(installed: InstalledPackages, names: set[str], plan: _Plan, target: Target) -> list[str]:
    """What distributions that no index is asked for require of one."""
    markers = target_markers(target)
    there = names | {each.name for each in plan.moved if each.change == "dropped"}
    found = {
        str(requirement)
        for each in installed.pypi
        if each.name in names
        for requirement in parsed(each.requires)
        if applies(requirement, markers) and normalised(requirement.name) not in there
    }
    return sorted(found)


def _moved(found: Mapping[str, Wheel], asked: Mapping[str, InstalledDistribution], plan: _Plan) -> list[Moved]:
    moved = []
    for name, wheel in found.items():
        if name not in asked:
            moved.append(Moved(name, "added", "", wheel.version, "required on the target"))
        elif not _same(wheel.version, asked[name].version):
            reason = plan.reasons.get(name, "another package of the target requires it")
            moved.append(Moved(name, "moved", asked[name].version, wheel.version, reason))
    return moved


def _same(one: str, other: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(one) == Version(other)
    except InvalidVersion:
        return one == other


def _resolved(found: Mapping[str, Wheel], installed: InstalledPackages, plan: _Plan) -> list[Resolved]:
    by_name = {each.name: each for each in installed.pypi}
    away = {each.name for each in plan.moved if each.change == "dropped"}
    rest = [each for each in installed.pypi if each.name not in found and each.name not in away]
    return [
        *(
            Resolved(
                name,
                wheel.version,
                by_name[name].requires if name in by_name and _same(wheel.version, by_name[name].version) else None,
            )
            for name, wheel in found.items()
        ),
        *(Resolved(each.name, each.version, each.requires) for each in rest),
    ]


def _version(installed: InstalledPackages, name: str) -> str:
    return next((each.version for each in installed.pypi if each.name == name), "")


def _only_here(installed: InstalledPackages, by: str) -> str:
    return f"required on {installed.system} only" + (f", by {by}" if by else "")


def _artifact(wheel: Wheel) -> Artifact:
    return Artifact(
        "wheel", wheel.name, wheel.version, wheel.url, wheel.sha256, wheel.size, wheel.index, query=wheel.query
    )


def _sdist(name: str, version: str, file: IndexFile, index: str) -> Artifact:
    url, query = file_without_credentials(file.url), urlsplit(file.url).query
    return Artifact("wheel", name, version, url, file.sha256, file.size, index, query=query)
