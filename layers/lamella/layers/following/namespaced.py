"""The process in a command's namespace: mounts the environment, starts the command, and replaces the environment on request.

It alone may mount there: as root, or with the capabilities of the user namespace that it made, which the command lost
with its execve(2). It talks to the follower over a socket of packets, each a JSON object:

    from here   {"pid": 12}                    the command's process; or {"failed": [class, message, exit code]}
                {"replaced": true}             atomically, or not; or {"why_not": "..."}
    to here     {"folders": [...], "signal": 0}    with the descriptor of a lease, which this process keeps to its end

It exits as the command does. If the follower is killed, both keep running in the last environment.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from lamella.layers.errors import CannotRun, LayersError, MountError
from lamella.layers.mounting import ladder, namespace, overlay, whole_tree
from lamella.layers.mounting.kernel import here
from lamella.layers.running import ca_bundle
from lamella.layers.running.failure import error_of, failure_of
from lamella.layers.running.run import assemble, execute, report
from lamella.layers.running.signals import FORWARDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.mounting.kernel import Kernel
    from lamella.layers.published.environment import PublishedEnvironment
    from lamella.layers.store.store import Store

PACKET = 1 << 20
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Start:
    """What to start."""

    store: Store
    environment: PublishedEnvironment
    folders: Sequence[str]
    command: Sequence[str]
    tree: bool
    """Whether a tree of links may stand in for a mount, at another path."""


def serve(follower: socket.socket, start: Start) -> NoReturn:
    """Become that process, in a forked child of one thread; never return."""
    code = 1
    try:
        kernel = here()
        prefix = _prefix(kernel, start)
        command = _started(start, prefix)
        follower.send(json.dumps({"pid": command}).encode())
        code = _wait(follower, kernel, prefix, command)
    except (LayersError, OSError, MemoryError, RuntimeError, ValueError) as error:
        known = error if isinstance(error, LayersError) else CannotRun(f"cannot prepare the namespace: {error!r}")
        with suppress(OSError):
            follower.send(json.dumps({"failed": failure_of(known)}).encode())
    finally:
        os._exit(code)


def _prefix(kernel: Kernel, start: Start) -> str:
    try:
        namespace.enter(kernel)
        assemble(kernel, start.store, start.environment, start.folders, _kept)
    except MountError as error:
        if not start.tree:
            raise MountError(f"{error}; --follow needs a mount here: add --restart, which does without") from error
        tree = whole_tree.linked(start.store, start.environment)
        if why_not := ladder.obstacle(tree):
            raise MountError(f"{error}; {why_not}; set LAMELLA_STORE to another disk") from error
        return tree
    return os.path.realpath(start.environment.prefix)


def _kept(_: Sequence[str]) -> None:
    """Trees are made of leased layers."""


def _started(start: Start, prefix: str) -> int:
    certificates = ca_bundle.certificate_file(prefix, start.environment.certificates, os.environ)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _end_with_parent()
        report(writer, lambda: execute(prefix, start.command, certificates))
    os.close(writer)
    # Those of a terminal come to the whole group; the follower forwards the others.
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    with open(reader, "rb") as answer:
        failed = answer.read()  # ends when the command's program has replaced the child's
    if failed:
        os.waitpid(child, 0)
        raise error_of(json.loads(failed))
    return child


def _wait(follower: socket.socket, kernel: Kernel, prefix: str, command: int) -> int:
    ended = os.pidfd_open(command)
    leases: list[int] = []
    listened = [follower.fileno(), ended]
    while True:
        ready, _, _ = select.select(listened, [], [])
        if ended in ready:
            code = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
            return code if code >= 0 else 128 - code
        packet, descriptors, _, _ = socket.recv_fds(follower, PACKET, 16)
        leases += descriptors
        if packet:
            answer = _replace(kernel, prefix, command, json.loads(packet))
            with suppress(OSError):
                follower.send(json.dumps(answer).encode())
        else:
            listened.remove(follower.fileno())  # the follower was killed


def _replace(kernel: Kernel, prefix: str, command: int, request: dict[str, Any]) -> dict[str, Any]:
    try:
        atomic = overlay.replace(kernel, request["folders"], prefix)
    except OSError as error:
        return {"why_not": f"cannot replace the environment at {prefix}: {error.strerror or error}"}
    if request["signal"]:
        with suppress(ProcessLookupError):
            os.kill(command, request["signal"])
    return {"replaced": atomic}


def _end_with_parent() -> None:
    """Have the kernel end the command if this process is killed: no follower could end or replace it then."""
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
