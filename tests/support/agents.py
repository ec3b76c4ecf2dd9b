"""An agent of a node, in a thread of the test or as a process, and clients of its socket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lamella.cli.failures import failure_of
from lamella.layers import (
    AgentOptions,
    MountError,
    Store,
    agent_state,
    mounts,
    request_environment,
    serve_agent,
    umount,
)
from support.processes import DEADLINE, Lines, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lamella.layers import NodeEnvironment


@dataclass
class Agent:
    """One agent. `events` holds its log."""

    folder: Path
    events: list[str] = field(default_factory=list)
    state: dict[str, object] = field(default_factory=dict)

    @property
    def socket(self) -> str:
        """Path of its socket."""
        return str(self.folder / "agent.sock")

    @property
    def store(self) -> Store:
        """Its store."""
        return Store(str(self.folder / "store"))

    def give(self, reference: str) -> NodeEnvironment:
        """Ask it for an environment."""
        return request_environment(reference, path=self.socket, timeout=20)

    def post(self, body: bytes, *, length: int | None = None) -> tuple[int, dict[str, Any]]:
        """Send any body; the status and the document of the answer."""
        size = len(body) if length is None else length
        return self.send(b"POST /environments HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + body)

    def send(self, request: bytes) -> tuple[int, dict[str, Any]]:
        """Send a request as it is; the status and the document of the answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(self.socket)
            with suppress(BrokenPipeError):  # refused before it was read to its end
                connection.sendall(request)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)

    def get(self, path: str) -> tuple[str, str]:
        """The head and the body of an answer."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(DEADLINE)
            connection.connect(self.socket)
            connection.sendall(b"GET %s HTTP/1.1\r\n\r\n" % path.encode())
            answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        return head.decode(), body.decode()

    def clean(self) -> None:
        """Unmount all that it has mounted."""
        for each in mounts(self.store):
            with suppress(MountError):
                umount(each.target, store=self.store, lazy=True)


@contextmanager
def agent(folder: Path, options: AgentOptions) -> Iterator[Agent]:
    """Serve in a thread of this process, with the socket and the store in `folder`; what it has mounted goes with it."""
    made = Agent(folder)
    stop, ready, failed = threading.Event(), threading.Event(), list[BaseException]()

    def come(state: dict[str, object]) -> None:
        made.state = state
        ready.set()

    def serve() -> None:
        try:
            serve_agent(
                replace(options, socket=made.socket),
                store=made.store,
                describe=lambda error: failure_of(error).document(),
                stop=stop,
                notify=lambda message, **_: made.events.append(message),
                ready=come,
            )
        except BaseException as error:
            failed.append(error)
            ready.set()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert ready.wait(DEADLINE), "the agent does not listen"
        if failed:
            raise failed[0]
        yield made
    finally:
        stop.set()
        thread.join(DEADLINE)
        made.clean()
        assert not thread.is_alive()


@contextmanager
def agent_process(
    folder: Path, *arguments: str, within: Sequence[str] = (), **environment: str
) -> Iterator[tuple[Agent, subprocess.Popen[str]]]:
    """Run the command, with the socket and the store in `folder`, and wait until it listens. Its mounts stay."""
    made = Agent(folder)
    command = [
        *within,
        sys.executable,
        "-m",
        "lamella.cli",
        "agent",
        "--json",
        "--metrics",
        "127.0.0.1:0",
        "--min-free",
        "0%",
    ]
    command += ["--socket", made.socket, "--store", made.store.path, *arguments]
    with (
        open(folder / "agent.log", "a") as log,
        started(command, stdout=subprocess.PIPE, stderr=log, env=os.environ | environment) as process,
    ):
        assert process.stdout
        line = next(Lines(process.stdout), "")
        assert line.startswith('{"version"'), (folder / "agent.log").read_text()
        made.state = json.loads(line)
        assert made.state == agent_state(made.socket)
        yield made, process


def wait_for(condition: Callable[[], bool], log: Path | None = None) -> None:
    """Return once `condition` holds; fail after a minute, with the agent's `log`."""
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until, log.read_text() if log else ""
        time.sleep(0.02)
