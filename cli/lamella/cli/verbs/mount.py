"""`lamella mount`: mount an environment at a folder, for every process, until `lamella umount`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lamella.cli import following
from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, table
from lamella.cli.settings import ELSEWHERE, METHOD, STORE, TRUST, add_settings, trust_of
from lamella.cli.tables import Column

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from lamella.layers import Mounted, Rung

SETTINGS = (STORE, METHOD, ELSEWHERE, *TRUST)
MODES = (
    Mode("--agent", flags_of("--timeout --elsewhere")),
    Mode("--follow", flags_of("--interval --dry-run --store", TRUST)),
    Mode("", flags_of("--writable --changes --prefix --explain --dry-run", SETTINGS)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("target", nargs="?", metavar="TARGET", help="empty folder to mount at; created if missing")
    parser.add_argument(
        "--agent",
        metavar="SOCKET",
        help="ask the node's agent at this Unix socket to mount, and print its folder; without TARGET",
    )
    parser.add_argument(
        "--timeout", metavar="SECONDS", default="120", help="with --agent: wait this long for an agent (default: 120)"
    )
    parser.add_argument("--writable", action="store_true", help="allow changes; umount discards them")
    parser.add_argument(
        "--changes", metavar="FOLDER", default="", help="allow changes and keep them in FOLDER; requires root"
    )
    parser.add_argument(
        "--prefix",
        metavar="PATH",
        default="",
        help="path at which programs see the environment (default: TARGET, as seen from its chroot if it is in one)",
    )
    parser.add_argument("--explain", action="store_true", help="show the method used, and why better ones failed")
    parser.add_argument("--dry-run", action="store_true", help="show what would be downloaded; mount nothing")
    following.add_to(parser)
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Mount, and print the folder."""
    if arguments.agent:
        from lamella.cli.verbs import agent

        return agent.ask(arguments)
    if arguments.agent == "":
        raise UsageError("--agent: empty SOCKET; name the agent's socket, or leave out --agent")
    if not arguments.target:
        raise UsageError("mount: missing TARGET; name an empty folder, or use --agent SOCKET")
    if arguments.dry_run:
        from lamella.cli.verbs import pull

        arguments.platform = None
        return pull.would(arguments, target=os.path.abspath(arguments.target))
    if arguments.follow:
        return following.mount(arguments)
    from lamella.cli.progress import shown
    from lamella.layers import MountOptions, Store, mount

    def notify(sentence: str) -> None:
        remark(f"lamella: {sentence}", quiet=arguments.quiet)

    with shown(quiet=arguments.quiet) as progress:
        mounted = mount(
            arguments.reference,
            arguments.target,
            store=Store(arguments.store),
            options=MountOptions(
                method=None if arguments.method == "auto" else arguments.method,
                writable=arguments.writable or bool(arguments.changes),
                changes=arguments.changes,
                prefix=arguments.prefix,
                elsewhere=arguments.elsewhere,
            ),
            trust=trust_of(arguments),
            progress=progress,
            notify=notify,
        )
    if arguments.json:
        result_json(document(mounted) | {"dry_run": False})
        return 0
    if arguments.explain:
        explain(mounted.rungs)
    result(mounted.target)
    remark(f"mounted {mounted.reference} by {mounted.method}", quiet=arguments.quiet)
    return 0


def document(mounted: Mounted) -> dict[str, Any]:
    """Return a mount as JSON."""
    return {
        "reference": mounted.reference,
        "target": mounted.target,
        "prefix": mounted.prefix,
        "method": mounted.method,
        "rungs": [asdict(rung) for rung in mounted.rungs],
        "changes": mounted.changes or None,
        "keeps_changes": mounted.keeps_changes,
    }


def explain(rungs: Sequence[Rung]) -> None:
    """Print a table of the methods tried; the last one was used."""
    table(
        (Column("Method", style="bold"), Column("", styles={"used": "green"}, shrinks=True)),
        [(rung.method, rung.why_not or "used") for rung in rungs],
    )
