"""`lamella scan`: show an environment and its findings, before a push."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lamella.cli import environment, files, findings, platforms
from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import FAIL_ON, IMAGE_PREFIX, TARGET_PLATFORMS, add_settings, platforms_of, quoted
from lamella.cli.suggestions import same_package
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from lamella.builder import Environment, Needs, ShippedFile, TargetPlan
    from lamella.layers import Platform

    Contents = Mapping[str, tuple[ShippedFile, ...]]

SETTINGS = (IMAGE_PREFIX, *environment.CONTENTS, FAIL_ON, TARGET_PLATFORMS, *platforms.SETTINGS)
_EVERY = flags_of("--no-local --wheels --allow-large --no-system-libraries --strict", SETTINGS)
MODES = (Mode("--files", _EVERY), Mode("", _EVERY | {"--all", "--left-out"}))
LARGEST = 20
"""Packages shown without --all: the rest is most of the lines and little of the size."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    environment.add_to(parser)
    environment.add_strict_to(parser)
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"show every package and finding (default: the {LARGEST} largest, and {findings.OF_ONE_KIND} findings of a kind)",
    )
    parser.add_argument(
        "--files",
        nargs="?",
        const="",
        metavar="PACKAGE",
        help="list the files that ship in a package's layer, or in every layer",
    )
    parser.add_argument("--left-out", action="store_true", help="list the paths left out, with the reasons")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Scan, and show the environment."""
    from lamella.cli.progress import shown

    named = platforms_of(arguments)
    if others := platforms.others(arguments, named):
        _check_flags(arguments)
        with shown(quiet=arguments.quiet) as progress:
            found = platforms.plans(arguments, others, progress)
        return _show_resolutions(arguments, found, [each for each in named if each not in found])
    with shown(quiet=arguments.quiet) as progress:
        scanned = environment.scanned(arguments, progress)
    chosen = None if arguments.files is None else _contents(scanned, arguments)
    if arguments.json:
        result_json(document(scanned, chosen))
    elif chosen is not None:
        _show_files(scanned, chosen)
    else:
        _show(scanned, everything=arguments.all, left_out=arguments.left_out)
        if scanned.left_out and not arguments.left_out:
            remark(
                f"{counted(len(scanned.left_out), 'path')} left out: --left-out shows them",
                quiet=arguments.quiet,
            )
    return _code(environment.objection(scanned, arguments.fail_on, arguments.strict, _where(arguments)))


def _code(objection: str) -> int:
    """Return the exit code, after a remark on an objection."""
    if objection:
        remark(f"lamella: {objection}")
    return int(bool(objection))


def _where(arguments: argparse.Namespace) -> str:
    return "see the result" if arguments.json or arguments.all else "see above, or all of them with --all"


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise `UsageError` for a flag that another platform does not take."""
    for flag in ("files", "left_out"):
        if getattr(arguments, flag):
            raise UsageError(f"--{flag.replace('_', '-')}: not for another platform; push it, then use lamella inspect")


def _show_resolutions(
    arguments: argparse.Namespace, found: Mapping[Platform, TargetPlan], as_it_is: Sequence[Platform]
) -> int:
    """Show what the environment becomes for other platforms."""
    if arguments.json:
        result_json(platforms.documents(arguments.prefix, found))
    else:
        platforms.show_all(arguments, found, to_stderr=False)
        for platform in as_it_is:
            remark(f"{platform}: ships as it is; see it without --platform", quiet=arguments.quiet)
        for plan in found.values():
            if plan.resolution.findings:
                findings.show(plan.resolution.findings, everything=arguments.all)
    return _code(platforms.objection(arguments, found, _where(arguments)))


def document(scanned: Environment, contents: Contents | None = None) -> dict[str, Any]:
    """Return the scan as JSON, with the files of the packages in `contents`."""
    listed = contents or {}
    return {
        "prefix": scanned.prefix,
        "platform": str(scanned.platform),
        "python": scanned.interpreter.version,
        "implementation": scanned.interpreter.implementation,
        "glibc": scanned.needs.glibc,
        "cpu_level": scanned.needs.level,
        "drivers": list(scanned.needs.drivers),
        "packages": [
            {
                "name": package.name,
                "version": package.version,
                "origin": package.origin,
                "build": package.build,
                "source": package.source,
                "files": len(package.files),
                "size": package.size,
            }
            | ({"contents": [asdict(file) for file in listed[package.name]]} if package.name in listed else {})
            for package in scanned.packages
        ],
        "findings": [findings.document(finding) for finding in scanned.findings],
        "left_out": [{"path": left.path, "reason": left.reason} for left in scanned.left_out],
    }


def _contents(scanned: Environment, arguments: argparse.Namespace) -> Contents:
    """Return the files of the packages that --files names, by package."""
    from lamella.builder import shipped_files

    name = arguments.files
    chosen = [package for package in scanned.packages if not name or same_package(package.name, name)]
    if not chosen:
        from difflib import get_close_matches

        close = get_close_matches(name, [package.name for package in scanned.packages], n=1)
        advice = f"did you mean {close[0]}?" if close else "list them with lamella scan --all"
        if os.path.exists(f"{name}/bin/python"):
            raise UsageError(
                f"--files {quoted(name)}: a folder, not a package; use lamella scan {quoted(name)} --files"
            )
        if os.path.exists(name):
            advice = f"lamella explain {quoted(name)} names the package of a file or folder"
        raise UsageError(f"--files {quoted(name)}: no such package in {scanned.prefix}; {advice}")
    return {package.name: shipped_files(scanned, package, arguments.image_prefix) for package in chosen}


def _show_files(scanned: Environment, contents: Contents) -> None:
    for number, package in enumerate(package for package in scanned.packages if package.name in contents):
        if number:
            result("")
        rows = [files.Row(file.path, _size(file), _note(file, scanned.prefix)) for file in contents[package.name]]
        files.show(f"{package.name} {package.version}".rstrip(), package.origin, rows, f"below {scanned.prefix}")


def _size(file: ShippedFile) -> int | None:
    return None if file.how == "compiled" else file.size


def _note(file: ShippedFile, prefix: str) -> str:
    """Return what differs from the file at that path below the prefix."""
    if file.link is not None:
        return f"-> {file.link}"
    if file.how in ("generated", "compiled"):
        return file.how
    moved = "" if file.source == os.path.join(prefix, file.path) else f"from {file.source}"
    return ", ".join(filter(None, ("rewritten" if file.how == "rewritten" else "", moved)))


def _show(scanned: Environment, *, everything: bool, left_out: bool) -> None:
    packages = sorted(scanned.packages, key=lambda package: (-package.size, package.name))
    total = sum(package.size for package in packages)
    result(os.path.abspath(scanned.prefix))
    result(
        f"{scanned.interpreter.implementation} {scanned.interpreter.version} on {scanned.platform}{_needs(scanned.needs)}"
    )
    result("")
    count = len(packages) if everything else LARGEST
    table(
        (
            Column("Package", style="bold"),
            Column("Version"),
            Column("Origin", style="cyan"),
            Column("Files", "right"),
            Column("Size", "right"),
            Column("", bar=True),
        ),
        [
            (
                package.name,
                package.version,
                package.origin,
                f"{len(package.files):,}",
                size(package.size),
                str(package.size / max(1, packages[0].size)),
            )
            for package in packages[:count]
        ],
    )
    if rest := packages[count:]:
        result(f"… and {len(rest)} more ({size(sum(package.size for package in rest))}): --all shows them")
    result("")
    files = sum(len(package.files) for package in packages)
    result(f"{counted(len(packages), 'package')}, {counted(files, 'file')}, {size(total)}")
    if scanned.findings:
        result("")
        findings.show(scanned.findings, everything=everything)
    if left_out and scanned.left_out:
        result("")
        table(
            (Column("Left out", shrinks=True), Column("Reason", shrinks=True)),
            [(left.path, left.reason) for left in scanned.left_out],
        )


def _needs(needs: Needs) -> str:
    """Return a node's requirements as the end of a line."""
    required = [f"glibc {needs.glibc}"] if needs.glibc else []
    if needs.level > 1:
        required.append(f"an x86-64-v{needs.level} CPU")
    required += needs.drivers
    return f", requires {', '.join(required)}" if required else ""
