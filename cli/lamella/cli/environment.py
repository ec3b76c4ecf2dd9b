"""The options that say what belongs to an environment: `scan` and `push` have the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lamella.cli.findings import how_many
from lamella.cli.output import counted, remark, size
from lamella.cli.settings import CACHE, FAIL_ON, LOCAL, RECORDED_PLATFORM

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.builder.environment import Environment, Severity
    from lamella.layers.progress import Progress

SETTINGS = (LOCAL, FAIL_ON, CACHE, RECORDED_PLATFORM)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument(
        "prefix",
        nargs="?",
        metavar="PREFIX",
        help="the environment's folder (default: VIRTUAL_ENV, CONDA_PREFIX, .venv or .pixi/envs/default here, "
        "or that of the python on PATH)",
    )
    add_no_local_to(parser)
    parser.add_argument(
        "--include", metavar="PATH", action="append", default=[], help="a file or folder that ships besides; repeatable"
    )
    parser.add_argument(
        "--wheels", action="store_true", help="build local projects as wheels, and ship those, not the files on disk"
    )
    parser.add_argument("--allow-large", action="store_true", help="more than 100 MiB of local code may ship")
    parser.add_argument(
        "--ignore", metavar="NAME", action="append", default=[], help="a package that does not ship; repeatable"
    )
    parser.add_argument(
        "--strict",
        metavar="NAME",
        action="append",
        default=[],
        help="end with exit code 1 where this package is missing, or has a warning or error; repeatable",
    )
    parser.add_argument("--no-system-libraries", action="store_true", help="ship no shared libraries of this system")


def add_no_local_to(parser: argparse.ArgumentParser) -> None:
    """Adds the flag that turns `LOCAL` off."""
    parser.add_argument(
        "--no-local",
        dest="local",
        action="store_const",
        const="",
        help="ship no code of the working directory or of another folder, whatever the settings say",
    )


def scanned(arguments: argparse.Namespace, progress: Progress) -> Environment:
    """The environment that `arguments` name. That local code is of it is said, since nobody may have asked for it."""
    from lamella.builder.scanning.scan import scan
    from lamella.layers.oci.documents import Platform

    environment = scan(
        arguments.prefix,
        local=arguments.local or None,
        working_directory=arguments.local is None,
        include=arguments.include,
        ignore=arguments.ignore,
        allow_large=arguments.allow_large,
        system_libraries=not arguments.no_system_libraries,
        wheels=arguments.wheels,
        image_prefix=arguments.image_prefix,
        platform=Platform.parse(arguments.platform) if arguments.platform else None,
        progress=progress,
    )
    for package in environment.packages:
        folder = package.source.removeprefix("file://")
        if package.origin == "local" and folder in _folders(arguments):
            hint = "" if arguments.local == "" else "; --no-local leaves it out"
            if package.records:  # a wheel of it, or an editable install, which ships in any case
                hint = ", with its metadata"
            what = f"{counted(len(package.files), 'file')}, {size(package.size)}"
            remark(f"local code of {folder}: {what}{hint}", quiet=arguments.quiet)
    return environment


def _folders(arguments: argparse.Namespace) -> set[str]:
    """Those whose code Python finds without an install."""
    folders = [arguments.local or os.curdir, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {os.path.abspath(folder) for folder in folders if folder}


def objection(environment: Environment, fail_on: str, strict: Sequence[str], where: str) -> str:
    """Why `--fail-on` and `--strict` do not let `environment` pass, as a clause; empty where they do.

    `where` says where all findings are.
    """
    from lamella.builder.scanning.findings import against

    if found := against(environment, strict=strict):
        more = f"; and {counted(len(found) - 1, 'more finding')}: {where}" if found[1:] else ""
        return f"--strict allows no such finding: {found[0].message}{more}"
    worst: Severity | None = "error" if fail_on == "error" else "warning" if fail_on == "warning" else None
    if found := against(environment, worst):
        return f"{how_many(found)}, and --fail-on {fail_on} allows none: {where}"
    return ""
