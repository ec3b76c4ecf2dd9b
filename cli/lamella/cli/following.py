"""`--follow`: mount or run an environment again whenever its tag moves, one line for each event."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from lamella.cli.errors import UsageError
from lamella.cli.output import event_json, event_line, remark, result_json
from lamella.cli.settings import trust_of
from lamella.layers.text import seconds, size

if TYPE_CHECKING:
    import argparse

    from lamella.layers import FollowEvent


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--follow",
        action="store_true",
        help="when the tag moves, show the new environment at the same path; running processes keep theirs",
    )
    parser.add_argument(
        "--interval",
        type=_interval,
        metavar="SECONDS",
        default=0.0,
        help="with --follow, time between two requests (default: 0.2 to this machine and to folders, else 1)",
    )


def mount(arguments: argparse.Namespace) -> int:
    """Follow at a folder until a signal ends this process; the mount stays."""
    from lamella.layers import FollowOptions, Store, follow

    mounted: list[str] = []

    def notify(event: FollowEvent) -> None:
        mounted.append(event.kind)
        _show(event, arguments, to=sys.stdout)

    try:
        follow(
            arguments.reference,
            arguments.target,
            FollowOptions(interval=arguments.interval),
            store=Store(arguments.store),
            trust=trust_of(arguments),
            notify=notify,
        )
    except KeyboardInterrupt:
        if arguments.json or not mounted:
            raise
        remark(
            f"stopped following; {arguments.target} stays mounted until lamella umount {arguments.target}",
            quiet=arguments.quiet,
        )
        return 128 + signal.SIGINT
    return 0


def run(arguments: argparse.Namespace) -> int:
    """Run the command and follow; its streams and exit code are the command's own, so that events go to stderr."""
    from lamella.cli.progress import shown
    from lamella.layers import FollowOptions, Store, run_following

    if arguments.restart and arguments.signal:
        raise UsageError("--restart --signal: a command that is started again needs no signal; omit one of them")
    options = FollowOptions(
        interval=arguments.interval,
        restart=arguments.restart,
        signal=_number(arguments.signal) if arguments.signal else 0,
    )
    with shown(quiet=arguments.quiet) as progress:
        code = run_following(
            arguments.reference,
            arguments.command,
            options,
            store=Store(arguments.store),
            trust=trust_of(arguments),
            progress=progress,
            notify=lambda event: _show(event, arguments, to=sys.stderr),
        )
    if arguments.json:
        value = {"reference": arguments.reference, "command": arguments.command, "dry_run": False, "exit_code": code}
        result_json(value, to=sys.stderr)
    return code


def document(event: FollowEvent) -> dict[str, Any]:
    """Return an event as JSON."""
    return {
        "event": event.kind,
        "message": event.message,
        "reference": event.reference or None,
        "downloaded": event.moved,
        "seconds": event.seconds,
    }


def _show(event: FollowEvent, arguments: argparse.Namespace, to: Any) -> None:
    if arguments.json:
        event_json(document(event), to)
        return
    moved = f"; {size(event.moved)} in {seconds(event.seconds)}" if event.seconds else ""
    remark(event_line(event.kind, f"{event.message}{moved}"), quiet=arguments.quiet)


def _interval(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.05 <= value <= 86400:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError("not a number of seconds from 0.05 to 86400")
    return value


def _number(name: str) -> int:
    try:
        return int(signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"])
    except KeyError:
        raise UsageError(f"--signal {name}: unknown signal; use a name such as HUP or USR1") from None
