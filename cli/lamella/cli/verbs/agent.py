"""`lamella agent`: serve environments to the pods of this node; and `lamella mount --agent`, which requests one."""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.modes import Mode, flags_of
from lamella.cli.output import remark, result, result_json, tell, writes_records
from lamella.cli.quantities import age_of, seconds_of, share_of, size_of
from lamella.cli.settings import STORE, TRUST, add_settings, quoted, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = (STORE, *TRUST)
MODES = (
    Mode("--check", flags_of("--socket")),
    Mode(
        "",
        flags_of(
            "--socket --socket-mode --environments --allow --pull --every --keep --min-free --idle --metrics", SETTINGS
        ),
    ),
)
SOCKET = "/run/lamella/agent.sock"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument(
        "--socket", metavar="PATH", default=SOCKET, help=f"Unix socket to listen on (default: {SOCKET})"
    )
    parser.add_argument(
        "--socket-mode",
        metavar="MODE",
        default="666",
        help="permissions of the socket, in octal (default: 666; the folder above it decides which pods reach it)",
    )
    parser.add_argument(
        "--environments", metavar="FOLDER", default="", help="folder of the mounts (default: environments in the store)"
    )
    parser.add_argument(
        "--allow",
        metavar="PATTERN",
        action="append",
        default=[],
        help="registry or repository that pods may ask for: HOST[:PORT][/REPOSITORY], *.DOMAIN or oci:/FOLDER, each with all "
        "below it (default: the repositories of --pull, or the machine's allowed-registries); repeatable",
    )
    parser.add_argument(
        "--pull",
        metavar="REFERENCE",
        action="append",
        default=[],
        help="keep this reference pulled and mounted; repeatable",
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        default="60",
        help="time between two checks of the tags of --pull, and of free space (default: 60)",
    )
    parser.add_argument("--keep", metavar="SIZE", help="free layers until at most this much is left, such as 100GB")
    parser.add_argument(
        "--min-free",
        metavar="PERCENT",
        default="10%",
        help="free layers until this much of the store's file system is free (default: 10%%; 0%% for no limit)",
    )
    parser.add_argument(
        "--idle",
        metavar="AGE",
        default="1h",
        help="keep an environment mounted this long after its last request or use (default: 1h)",
    )
    parser.add_argument(
        "--metrics",
        metavar="ADDRESS:PORT",
        default="127.0.0.1:9464",
        help="serve metrics for Prometheus at this address too (default: 127.0.0.1:9464; empty for the socket alone)",
    )
    parser.add_argument("--check", action="store_true", help="ask the agent at --socket whether it is ready, and exit")
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    from lamella.layers import AgentOptions, Store, agent_state, serve_agent

    if arguments.check:
        state = agent_state(arguments.socket)
        if arguments.json:
            result_json(state)
        remark(f"the agent at {arguments.socket} is ready", quiet=arguments.quiet)
        return 0
    from lamella.cli.failures import failure_of

    options = AgentOptions(
        socket=arguments.socket,
        socket_mode=_mode_of(arguments.socket_mode),
        environments=arguments.environments,
        allow=tuple(arguments.allow),
        pull=tuple(arguments.pull),
        every=seconds_of(arguments.every, "--every"),
        keep_bytes=size_of(arguments.keep),
        min_free=share_of(arguments.min_free, "--min-free"),
        idle=age_of(arguments.idle, "--idle") or 0.0,
        metrics=arguments.metrics,
    )
    stop = threading.Event()

    def notify(message: str, **fields: object) -> None:
        if writes_records():
            from lamella.cli.logs import document

            sys.stderr.write(f"{document('info', 'lamella.agent', message, fields)}\n")
            sys.stderr.flush()
        elif not arguments.quiet:
            tell(f"lamella agent: {message}")

    def ready(state: dict[str, object]) -> None:
        if arguments.json:
            print(json.dumps(state), flush=True)

    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        serve_agent(
            options,
            store=Store(arguments.store),
            trust=trust_of(arguments),
            describe=lambda error: failure_of(error).document(),
            notify=notify,
            stop=stop,
            ready=ready,
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def ask(arguments: argparse.Namespace) -> int:
    """Ask the agent of `mount --agent` for an environment, and print its folder."""
    from lamella.layers import request_environment

    if arguments.target:
        raise UsageError("TARGET: not with --agent; the agent chooses the folder, which is read-only, and prints it")
    given = request_environment(
        arguments.reference,
        path=arguments.agent,
        timeout=seconds_of(arguments.timeout, "--timeout"),
        elsewhere=bool(arguments.elsewhere),
    )
    if arguments.json:
        result_json(
            {
                "reference": given.reference,
                "digest": given.digest,
                "target": given.path,
                "prefix": given.prefix,
                "agent": arguments.agent,
                "dry_run": False,
            }
        )
        return 0
    result(given.path)
    remark(f"the agent at {arguments.agent} has mounted {given.reference}", quiet=arguments.quiet)
    return 0


def _mode_of(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise UsageError(f"--socket-mode {quoted(text)}: not octal permissions; use 666, 660 or 600")
    return mode
