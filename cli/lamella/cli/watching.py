"""`lamella push --watch`: push again after each change, one line for each event."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from lamella.cli import environment
from lamella.cli.output import event_json, event_line, remark, result
from lamella.cli.settings import platform_of, trust_of
from lamella.layers.text import seconds, size

if TYPE_CHECKING:
    import argparse

    from lamella.builder import Environment, Pushed, PushOptions, WatchEvent


def push_again(arguments: argparse.Namespace, options: PushOptions, pushed: Pushed, took: float) -> int:
    """Print the first push, then push after each change, until a signal ends this process."""
    from lamella.builder import LayerCache, WatchEvent, WatchOptions, watch

    def objection(scanned: Environment) -> str:
        return environment.objection(scanned, arguments.fail_on, arguments.strict, "see lamella scan")

    def notify(event: WatchEvent) -> None:
        if arguments.json:
            event_json(document(event))
        elif event.kind == "pushed":
            moved = f"{size(event.moved)} in {seconds(event.seconds)}"
            result(event_line(event.kind, f"{event.message}; {moved}"))
            sys.stdout.flush()
        else:
            remark(event_line(event.kind, event.message), quiet=arguments.quiet)

    notify(WatchEvent("pushed", f"pushed {pushed.reference}", pushed.reference, (), pushed.moved, round(took, 3)))
    try:
        watch(
            arguments.reference,
            # As scanned: another folder may be the active environment's later.
            os.path.abspath(pushed.environment.prefix),
            WatchOptions(
                push=options,
                scan=environment.options_of(arguments, platform_of(arguments)),
                poll=arguments.poll,
                objection=objection,
            ),
            trust=trust_of(arguments),
            cache=LayerCache(arguments.cache),
            notify=notify,
        )
    except KeyboardInterrupt:
        if arguments.json:
            raise
        remark(f"stopped watching; {arguments.reference} keeps the last push", quiet=arguments.quiet)
        return 128 + signal.SIGINT
    return 0


def document(event: WatchEvent) -> dict[str, Any]:
    """Return an event as JSON."""
    return {
        "event": event.kind,
        "message": event.message,
        "reference": event.reference or None,
        "packages": list(event.packages),
        "uploaded": event.moved,
        "seconds": event.seconds,
    }
