"""The options that say what belongs to an environment: `scan` and `push` have the same."""

from __future__ import annotations

import contextlib
import tempfile
from typing import TYPE_CHECKING

from lamella.cli.findings import how_many
from lamella.cli.output import counted
from lamella.cli.settings import CACHE, FAIL_ON, LOCAL

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from lamella.builder.environment import Environment, Severity
    from lamella.layers.progress import Progress

SETTINGS = (LOCAL, FAIL_ON, CACHE)


def add_to(parser: argparse.ArgumentParser) -> None:
    """Adds them."""
    parser.add_argument(
        "prefix",
        nargs="?",
        metavar="PREFIX",
        help="the environment's folder (default: VIRTUAL_ENV, CONDA_PREFIX, .venv or .pixi/envs/default here, "
        "or that of the python on PATH)",
    )
    parser.add_argument(
        "--no-local", dest="local", action="store_const", const="", help="ship no local code, whatever the settings say"
    )
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


@contextlib.contextmanager
def scanned(arguments: argparse.Namespace, progress: Progress) -> Iterator[Environment]:
    """The environment that `arguments` name; wheels that were built for it are there until the end."""
    from lamella.builder.scan import scan

    with contextlib.ExitStack() as stack:
        wheels = ""
        if arguments.wheels:
            wheels = stack.enter_context(tempfile.TemporaryDirectory(prefix="lamella-", ignore_cleanup_errors=True))
        yield scan(
            arguments.prefix,
            local=arguments.local or None,
            include=arguments.include,
            ignore=arguments.ignore,
            allow_large=arguments.allow_large,
            system_libraries=not arguments.no_system_libraries,
            wheels=wheels,
            image_prefix=arguments.image_prefix,
            progress=progress,
        )


def objection(environment: Environment, fail_on: str, strict: Sequence[str], where: str) -> str:
    """Why `--fail-on` and `--strict` do not let `environment` pass, as a clause; empty where they do.

    `where` says where all findings are.
    """
    from lamella.builder.findings import against

    if found := against(environment, strict=strict):
        more = f"; and {counted(len(found) - 1, 'more finding')}: {where}" if found[1:] else ""
        return f"--strict allows no such finding: {found[0].message}{more}"
    worst: Severity | None = "error" if fail_on == "error" else "warning" if fail_on == "warning" else None
    if found := against(environment, worst):
        return f"{how_many(found)}, and --fail-on {fail_on} allows none: {where}"
    return ""
