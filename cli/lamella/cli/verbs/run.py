"""`lamella run`: replace this process with one command in an environment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lamella.cli import following
from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result_json
from lamella.cli.settings import STORE, TRUST, add_settings, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE, *TRUST)
MODES = (
    Mode("--follow", flags_of("--interval --restart --signal --dry-run", SETTINGS)),
    Mode("", flags_of("--dry-run", SETTINGS)),
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments, without the command after --, which `main` splits off."""
    parser.usage = "lamella run [options] REFERENCE -- COMMAND [ARGUMENT ...]"
    parser.add_argument("reference", metavar="REFERENCE", help="registry/repository:tag@digest, or oci:FOLDER:tag")
    parser.add_argument("--dry-run", action="store_true", help="show what would be downloaded; run nothing")
    following.add_to(parser)
    parser.add_argument(
        "--restart",
        action="store_true",
        help="with --follow, end the command (SIGTERM, and SIGKILL after 10 s) and start it in the new environment",
    )
    parser.add_argument(
        "--signal",
        metavar="NAME",
        help="with --follow, send this signal, such as HUP, to the command when new processes see the new environment",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Run. stdin, stdout, signals and the exit code are the command's own, so --json prints one line to stderr."""
    if not arguments.command:
        raise UsageError("run: missing command; use lamella run REFERENCE -- python script.py")
    if arguments.dry_run:
        from lamella.cli.verbs import pull

        arguments.platform = None
        return pull.would(arguments, command=arguments.command, exit_code=None)
    if arguments.follow:
        return following.run(arguments)
    from lamella.cli.progress import shown
    from lamella.layers import Store, exec_command
    from lamella.layers import run as run_and_wait

    store = Store(arguments.store)

    def notify(sentence: str) -> None:
        remark(f"lamella: {sentence}", quiet=arguments.quiet)

    with shown(quiet=arguments.quiet) as progress:
        if not arguments.json:
            exec_command(
                arguments.reference,
                arguments.command,
                store=store,
                trust=trust_of(arguments),
                progress=progress,
                notify=notify,
            )
        code = run_and_wait(
            arguments.reference,
            arguments.command,
            store=store,
            trust=trust_of(arguments),
            progress=progress,
            notify=notify,
        )
    # The command's output is on stdout: the document is the last line of stderr.
    value = {"reference": arguments.reference, "command": arguments.command, "dry_run": False, "exit_code": code}
    result_json(value, to=sys.stderr)
    return code
