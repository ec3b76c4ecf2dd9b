"""Options that select the contents of an environment, shared by `scan` and `push`."""

from __future__ import annotations

import gc
import os
import re
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.findings import how_many
from lamella.cli.output import remark
from lamella.cli.settings import CACHE, FAIL_ON, IGNORE, INCLUDE, LOCAL, RECORDED_PLATFORM, platform_of, quoted
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.builder import Environment, Precompiler, ScanOptions, TargetPlan
    from lamella.layers import Finding, Platform, Progress, Severity

CONTENTS = (LOCAL, INCLUDE, IGNORE, CACHE)
"""Settings that decide what ships."""
SETTINGS = (*CONTENTS, RECORDED_PLATFORM)
"""Settings of each verb that scans."""
CHECKED = (*SETTINGS, FAIL_ON)
"""Settings of each verb whose exit code depends on the findings."""


def check_folder(verb: str, text: str) -> None:
    """Raise `UsageError` if `text`, a reference or a folder, is written as a path and nothing is there."""
    if text.startswith((".", "/", "~")) and not os.path.lexists(text):
        raise UsageError(
            f"{verb} {text}: no such folder; name the folder of an environment, such as .venv, or a reference "
            "(oci:FOLDER:TAG for an OCI layout folder)"
        )


def check_prefix(text: str | None) -> None:
    """Raise `UsageError` if `text`, the folder of an environment, is a reference."""
    if text and names_reference(text) and not os.path.lexists(text):
        raise UsageError(
            f"{text}: a reference, not the folder of an environment; lamella inspect {quoted(text)} shows what it holds"
        )


def names_reference(text: str) -> bool:
    """Whether `text` is written as a reference to a layout folder, or to a registry; ./ before it makes it a path."""
    host, slash, rest = text.partition("/")
    tagged = ":" in rest.rpartition("/")[2] and ("." in host.strip(".") or host == "localhost")
    return text.startswith("oci:") or bool(slash and (tagged or re.search(r":\d+$", host)))


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_prefix_to(parser)
    add_no_local_to(parser)
    parser.add_argument(
        "--wheels",
        action="store_true",
        help="build local projects as wheels and ship those instead of the files on disk",
    )
    parser.add_argument("--allow-large", action="store_true", help="allow more than 100 MiB of local code")
    parser.add_argument("--no-system-libraries", action="store_true", help="leave out shared libraries of this system")


def add_prefix_to(parser: argparse.ArgumentParser) -> None:
    """Add the environment's folder."""
    parser.add_argument(
        "prefix",
        nargs="?",
        metavar="PREFIX",
        help="environment folder (default: VIRTUAL_ENV, CONDA_PREFIX, the environment of the project here or "
        "above, such as .venv or .pixi/envs/default, else that of the python on PATH)",
    )


def add_strict_to(parser: argparse.ArgumentParser) -> None:
    """Add the flag that makes the exit code depend on a package's findings."""
    parser.add_argument(
        "--strict",
        metavar="NAME",
        action="append",
        default=[],
        help="exit with code 1 if this package is missing or has a warning or error; repeatable",
    )


def add_no_local_to(parser: argparse.ArgumentParser) -> None:
    """Add the flag that turns `LOCAL` off."""
    parser.add_argument(
        "--no-local",
        dest="local",
        action="store_const",
        const="",
        help="leave out local code, whatever LAMELLA_LOCAL and the settings say",
    )


def scanned(
    arguments: argparse.Namespace,
    progress: Progress,
    options: ScanOptions | None = None,
    precompiler: Precompiler | None = None,
) -> Environment:
    """Scan the environment that `arguments` name. Remark on local code, which ships by default."""
    from lamella.builder import active_prefix, scan

    check_prefix(arguments.prefix)
    gc.disable()
    try:
        chosen = options or options_of(arguments, platform_of(arguments))
        environment = scan(arguments.prefix or active_prefix(), chosen, progress=progress, precompiler=precompiler)
        # A scan's hundreds of thousands of objects stay and form no cycles: spare Python the search for some.
        gc.freeze()
    finally:
        gc.enable()
    remark_on_local_code(arguments, environment)
    return environment


def remark_on_local_code(arguments: argparse.Namespace, environment: Environment) -> None:
    """Remark on code that ships though nothing installed it."""
    for package in environment.packages:
        folder = package.source.removeprefix("file://")
        if package.origin == "local" and folder in _folders(arguments):
            hint = "" if arguments.local == "" else "; --no-local leaves it out"
            if package.records:  # a wheel of it, or an editable install, which ships even with --no-local
                hint = ", with its metadata"
            what = f"{counted(len(package.files), 'file')}, {size(package.size)}"
            remark(f"local code of {folder}: {what}{hint}", quiet=arguments.quiet)


def options_of(arguments: argparse.Namespace, platform: Platform | None = None) -> ScanOptions:
    """Return the options of the scan that `arguments` name, for `platform`."""
    from lamella.builder import ScanOptions

    return ScanOptions(
        local=arguments.local or None,
        working_directory=arguments.local is None,
        include=tuple(arguments.include),
        ignore=tuple(arguments.ignore),
        allow_large=arguments.allow_large,
        system_libraries=not arguments.no_system_libraries,
        wheels=arguments.wheels,
        image_prefix=arguments.image_prefix,
        platform=platform,
        cache=arguments.cache or None,
    )


def _folders(arguments: argparse.Namespace) -> set[str]:
    """Return the folders whose code Python imports without an installation."""
    folders = [arguments.local or os.curdir, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {os.path.abspath(folder) for folder in folders if folder}


def objection(environment: Environment | TargetPlan, fail_on: str, strict: Sequence[str], where: str) -> str:
    """Return why `environment`, or what it becomes for a platform, fails `--strict` or `--fail-on`, or an empty string if it passes.

    `where` is the last clause: how to see the findings.
    """
    from lamella.builder import Environment as Scanned
    from lamella.builder import blocking_findings

    def blocking(worst: Severity | None = None, strict: Sequence[str] = ()) -> list[Finding]:
        # Not by the class of a plan, whose import takes as long as half a scan.
        if isinstance(environment, Scanned):
            return blocking_findings(environment, worst, strict)
        return environment.blocking_findings(worst, strict)

    if found := blocking(strict=strict):
        more = f"; {counted(len(found) - 1, 'more finding')}, {where}" if found[1:] else ""
        return f"--strict: {found[0].message}{more}"
    worst: Severity | None = "error" if fail_on == "error" else "warning" if fail_on == "warning" else None
    if found := blocking(worst):
        return f"--fail-on {fail_on}: {how_many(found)}; {where}"
    return ""
