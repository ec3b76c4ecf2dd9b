"""`lamella compare`: one environment through Lamella and through other workflows, side by side, measured."""

from __future__ import annotations

import os
import re
import shlex
import sys
from typing import TYPE_CHECKING

from lamella.cli import environment
from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result_json
from lamella.cli.settings import CACHE, add_settings, quoted

if TYPE_CHECKING:
    import argparse

    from lamella.comparison import CompareOptions, Comparison

SETTINGS = (CACHE,)
MOST = 100
"""Rounds and nodes: more of either is a slip of the keyboard."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    # Not the options of a push: the comparison ships local code of its own, which its stories edit.
    environment.add_prefix_to(parser)
    add_settings(parser, SETTINGS)
    what = parser.add_argument_group("comparison")
    what.add_argument(
        "--workflow",
        metavar="NAME",
        action="append",
        default=[],
        help="compare this workflow, such as lamella, docker-uv, docker-copy, podman-uv-zstd, conda-pack-zst, uv-warm or ray-pip; "
        "repeatable (default: all; those whose programs are missing are named, with how to get them)",
    )
    what.add_argument(
        "--story",
        metavar="NAME",
        action="append",
        default=[],
        help="measure this change: new, unchanged, small-upgrade, large-upgrade, edit, sharing, second-node or ten-nodes; "
        "repeatable (default: all)",
    )
    what.add_argument("--rounds", metavar="N", default="1", help="repeat everything, by turns (default: 1)")
    what.add_argument("--nodes", metavar="N", default="10", help="nodes of the story ten-nodes (default: 10)")
    what.add_argument(
        "--registry",
        metavar="HOST/REPO",
        help="use this registry, over plain HTTP; its disk is not counted (default: start Debian's docker-registry)",
    )
    what.add_argument(
        "--base-image",
        metavar="IMAGE",
        help="image that Docker's workflows start from (default: Debian with its Python, made with mmdebstrap)",
    )
    what.add_argument("--delay-ms", metavar="N", default="0", help="delay of each line, each way (default: 0)")
    what.add_argument("--megabits", metavar="N", help="speed of each line, each way, per second (default: unlimited)")
    what.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="where to keep copies, engines and registries, which are removed at the end; several times the environment's "
        "size (default: the system's temporary folder)",
    )
    what.add_argument(
        "--report", metavar="FOLDER", help="write a page with charts there, and result.json after each run"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, and show the result."""
    from lamella.builder import ScanOptions, active_prefix, scan
    from lamella.cli.progress import shown
    from lamella.comparison import check_report, compare, write_result

    options = _options(arguments)
    environment.check_prefix(arguments.prefix)
    if arguments.report:
        check_report(arguments.report)
    path = os.path.join(arguments.report, "result.json") if arguments.report else None
    latest: list[Comparison] = []

    def keep(result: Comparison) -> None:
        latest[:] = [result]
        if path:
            write_result(result, path)

    try:
        with shown(quiet=arguments.quiet) as progress:
            prefix = arguments.prefix or active_prefix()
            scanned = scan(prefix, ScanOptions(cache=arguments.cache or None), progress=progress)
            compared = compare(
                scanned,
                options,
                progress=progress,
                note=lambda line: remark(line, quiet=arguments.quiet),
                partial=keep,
            )
    except (KeyboardInterrupt, SystemExit):
        if latest:
            _show(arguments, latest[0])
        raise
    _show(arguments, compared)
    return 0 if any(not run.failed for run in compared.runs) else 1


def _show(arguments: argparse.Namespace, compared: Comparison) -> None:
    from lamella.cli.comparison_table import show_comparison
    from lamella.comparison import document, write_report

    if arguments.report:
        write_report(compared, arguments.report)
    if arguments.json:
        result_json(document(compared))
    else:
        show_comparison(compared, quiet=arguments.quiet)


def _options(arguments: argparse.Namespace) -> CompareOptions:
    from lamella.comparison import CompareOptions

    return CompareOptions(
        workflows=tuple(arguments.workflow),
        stories=tuple(arguments.story),
        rounds=_count("--rounds", arguments.rounds),
        nodes=_count("--nodes", arguments.nodes),
        registry=_registry(arguments.registry) if arguments.registry else None,
        delay_ms=_amount("--delay-ms", arguments.delay_ms),
        megabits=_amount("--megabits", arguments.megabits) or None if arguments.megabits else None,
        base_image=arguments.base_image,
        scratch=arguments.scratch,
        command=shlex.join(["lamella", *sys.argv[1:]]),
    )


def _registry(text: str) -> str:
    """Return HOST:PORT/REPOSITORY, with the port of plain HTTP as the default."""
    if not (found := re.fullmatch(r"([\w.-]+)(:\d+)?(/[a-z0-9._/-]+)?", text)):
        raise UsageError(f"--registry {quoted(text)}: not HOST:PORT/REPOSITORY, such as localhost:5000/compare")
    host, port, repository = found.groups()
    return f"{host}{port or ':80'}{(repository or '').rstrip('/')}"


def _count(flag: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST:
        raise UsageError(f"{flag} {quoted(text)}: not a number from 1 to {MOST}")
    return int(text)


def _amount(flag: str, text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e6:
        raise UsageError(f"{flag} {quoted(text)}: not a number from 0")
    return amount
