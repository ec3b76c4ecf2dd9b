"""`--platform` of another platform than the environment's: resolve, show what differs, push one after the other."""

from __future__ import annotations

import contextlib
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamella.cli import environment, findings
from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result, table
from lamella.cli.settings import CUDA, EXACT, GLIBC, MATCH, PYTHON_FROM, quoted, trust_of
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping, Sequence

    from lamella.builder import Environment, Pushed, PushOptions, ResolveOptions, TargetPlan
    from lamella.layers import Platform, Progress

SETTINGS = (MATCH, EXACT, GLIBC, CUDA, PYTHON_FROM)
"""Settings of verbs that resolve."""


def options_of(arguments: argparse.Namespace) -> ResolveOptions:
    """Return how packages may differ, as `arguments` say. Raises `UsageError`."""
    from lamella.builder import ResolveOptions

    for setting in (GLIBC, CUDA):
        value = getattr(arguments, setting.attribute) or ""
        if value and not all(part.isdigit() for part in value.split(".")):
            raise UsageError(
                f"--{setting.name} {quoted(value)}: not a version; write it as {setting.default or '12.4'}"
            )
    return ResolveOptions(
        match=arguments.match or None,
        exact=tuple(arguments.exact),
        glibc=arguments.glibc,
        cuda=arguments.cuda or "",
        python_from=arguments.python_from or "",
    )


def others(arguments: argparse.Namespace, named: Sequence[Platform]) -> tuple[Platform, ...]:
    """Return those of `named` that the environment is not for.

    Raises `UsageError` for a flag that only other platforms take, on a command line without `--platform`. Asks no index.
    """
    found: tuple[Platform, ...] = ()
    if named:
        # A push for this machine does not wait for what resolves for another one.
        from lamella.builder import active_prefix, needs_resolving

        arguments.prefix = arguments.prefix or active_prefix()
        found = tuple(platform for platform in named if needs_resolving(arguments.prefix, platform))
    given = [f"--{setting.name}" for setting in SETTINGS if setting.attribute in arguments.given]
    # One command line may serve laptops of several systems: with --platform, its options wait for those that need them.
    if given and not named:
        raise UsageError(f"{given[0]}: has no effect without --platform; add --platform, or leave {given[0]} out")
    return found


def plans(
    arguments: argparse.Namespace, platforms: Sequence[Platform], progress: Progress
) -> dict[Platform, TargetPlan]:
    """Resolve the environment for each of `platforms`."""
    from lamella.builder import resolve

    options = options_of(arguments)
    return {platform: resolve(arguments.prefix, platform, options, progress=progress) for platform in platforms}


def objection(arguments: argparse.Namespace, found: Mapping[Platform, TargetPlan], where: str) -> str:
    """Return why a plan of `found` fails `--strict` or `--fail-on`, or an empty string if all pass."""
    for platform, plan in found.items():
        if reason := environment.objection(plan, arguments.fail_on, arguments.strict, where):
            return f"{platform}: {reason}"
    return ""


def show(plan: TargetPlan, *, quiet: bool, to_stderr: bool) -> None:
    """Print what differs on the plan's platform, and what it takes."""
    resolution = plan.resolution
    stream = sys.stderr if to_stderr else sys.stdout
    if resolution.moved and not (quiet and to_stderr):
        table(
            (
                Column("Package", style="bold"),
                Column("Installed", shrinks=True),
                Column(str(resolution.target.platform), shrinks=True),
                Column("Why", shrinks=True),
            ),
            [(each.name, each.installed or "-", each.resolved or "-", each.reason) for each in resolution.moved],
            stream,
        )
    remark(summary(plan), quiet=quiet)


def summary(plan: TargetPlan) -> str:
    """Return one line about what the plan takes."""
    resolution = plan.resolution
    counts = [
        len([each for each in resolution.moved if each.change == change]) for change in ("moved", "dropped", "added")
    ]
    names = ("with another version", "left out", "added")
    differs = ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True) if count)
    sizes = [each.size for each in resolution.artifacts]
    # An index need not state sizes; sources and files of URLs have none before they are fetched.
    total = size(sum(sizes)) if all(sizes) else f"at least {size(sum(sizes))}" if any(sizes) else "an unknown size"
    packages = counted(len(resolution.artifacts) + len(resolution.kept), "package")
    local = f", {counted(len(resolution.projects), 'wheel')} to build" if resolution.projects else ""
    return (
        f"{resolution.target.platform}: {packages}{local}, {total} to download unless cached; "
        f"{differs or 'the same versions'}"
    )


def document(plan: TargetPlan) -> dict[str, Any]:
    """Return a resolution as JSON."""
    resolution = plan.resolution
    return {
        "platform": str(resolution.target.platform),
        "python": resolution.target.python,
        "glibc": resolution.target.glibc,
        "match": plan.options.match,
        "system": f"{plan.installed.system}/{plan.installed.architecture}",
        "download": {"files": len(resolution.artifacts), "bytes": sum(each.size for each in resolution.artifacts)},
        "packages": [
            {
                "kind": each.kind,
                "name": each.name,
                "version": each.version,
                "build": each.build,
                "url": each.url,
                "sha256": each.sha256,
                "size": each.size,
                "index": each.index,
            }
            for each in resolution.artifacts
        ],
        "projects": list(resolution.projects),
        "kept": list(resolution.kept),
        "moved": [
            {
                "name": each.name,
                "change": each.change,
                "installed": each.installed,
                "resolved": each.resolved,
                "reason": each.reason,
            }
            for each in resolution.moved
        ],
        "findings": [findings.document(each) for each in resolution.findings],
    }


def documents(
    prefix: str, found: Mapping[Platform, TargetPlan], reference: str = "", *, dry_run: bool = True
) -> dict[str, Any]:
    """Return the result of a verb that stops before anything is downloaded."""
    return {
        "reference": reference or None,
        "dry_run": dry_run,
        "prefix": prefix,
        "resolutions": [document(plan) for plan in found.values()],
    }


@contextlib.contextmanager
def environments(
    arguments: argparse.Namespace,
    platforms: Sequence[Platform],
    found: Mapping[Platform, TargetPlan],
    progress: Progress,
) -> Iterator[list[Environment]]:
    """Yield an environment for each of `platforms`, laid out and scanned."""
    from lamella.builder import target_environment

    with contextlib.ExitStack() as stack:
        scanned = []
        for platform in platforms:
            options = environment.options_of(arguments, platform)
            if platform in found:
                target = target_environment(
                    found[platform],
                    options,
                    repository=getattr(arguments, "reference", ""),
                    trust=trust_of(arguments),
                    progress=progress,
                )
                scanned.append(stack.enter_context(target))
                environment.remark_on_local_code(arguments, scanned[-1])
            else:
                scanned.append(environment.scanned(arguments, progress, options))
        yield scanned


def of_each(options: PushOptions, platforms: Sequence[Platform]) -> list[PushOptions]:
    """Return the options of the push for each of `platforms`, under one tag.

    Each push keeps what the tag has, so that it never lacks a platform. The last one drops those that are not named,
    unless all are to stay.
    """
    if len(platforms) == 1:
        return [options]
    kept = [replace(options, append=True) for _ in platforms]
    if not options.append:
        kept[-1] = replace(kept[-1], keep=tuple(platforms[:-1]))
    return kept


def push_each(
    arguments: argparse.Namespace, options: PushOptions, scanned: Sequence[Environment], progress: Progress
) -> list[tuple[Pushed, float]]:
    """Push each of `scanned` under the tag, with the seconds that it took."""
    from lamella.builder import LayerCache, push

    cache = LayerCache(arguments.cache)
    pushed = []
    for each, chosen in zip(scanned, of_each(options, [each.platform for each in scanned]), strict=True):
        began = time.monotonic()
        made = push(arguments.reference, each, chosen, trust=trust_of(arguments), cache=cache, progress=progress)
        pushed.append((made, time.monotonic() - began))
    return pushed


def show_all(arguments: argparse.Namespace, found: Mapping[Platform, TargetPlan], *, to_stderr: bool) -> None:
    """Print every plan of `found`."""
    for number, plan in enumerate(found.values()):
        if number and not to_stderr:
            result("")
        show(plan, quiet=arguments.quiet, to_stderr=to_stderr)
