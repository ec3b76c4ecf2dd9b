"""One command in an environment that follows a tag.

This process asks the registry, pulls and leases; another one is in the command's namespace (see `namespaced`). With
`restart` there is a new one of these for each environment.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import socket
import threading
import time
import warnings
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import CannotRun, LayersError
from lamella.layers.following import namespaced
from lamella.layers.following.mounted import FollowOptions
from lamella.layers.following.moves import FollowEvent, Moves
from lamella.layers.following.tag import TaggedDigest
from lamella.layers.mounting import lowerdirs
from lamella.layers.mounting.kernel import here
from lamella.layers.oci.reference import Reference
from lamella.layers.pulling import pull
from lamella.layers.running import signals
from lamella.layers.running.failure import error_of
from lamella.layers.settings.trust import Trust
from lamella.layers.store import leases
from lamella.layers.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.layers.oci.documents import Digest
    from lamella.layers.progress.display import Progress
    from lamella.layers.pulling.pull import Pulled


@dataclass(frozen=True, slots=True)
class _Ready:
    """An environment that is here, leased until `stack` closes."""

    pulled: Pulled
    stack: ExitStack
    lease: int
    began: float


def _ignore(_: FollowEvent) -> None:
    """Discard the event."""


def run_following(
    reference: str,
    command: Sequence[str],
    options: FollowOptions = FollowOptions(),
    *,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress | None = None,
    notify: Callable[[FollowEvent], object] = _ignore,
) -> int:
    """Run `command` in the environment of the tag `reference` and follow the tag; return the command's exit code.

    Processes that the command starts later see the environment that the tag names by then, at the same path; with
    `options.restart`, the command is started again instead. The exit code is that of the command when it ends by
    itself, 128 + n after signal n. Layers stay leased as long as the command lives. Raises what `run` raises.
    """
    here()
    store = store or Store()

    def told(event: FollowEvent) -> None:
        # Neither the command nor the following ends because a stream was closed, or its disk is full.
        with suppress(OSError):
            notify(event)

    with ExitStack() as stack:
        tag = stack.enter_context(closing(TaggedDigest(reference, trust, options.interval)))
        moves = Moves(tag, store, trust, told)
        digest = tag.ask()
        with pull.leased(tag.at(digest), store=store, trust=trust, progress=progress, check=moves.check) as pulled:
            ready = _leased(store, pulled, stack.enter_context(ExitStack()), time.monotonic())
        moves.used = digest
        session = _Session(command, options, store, told)
        stack.callback(session.restore_signals)
        session.start(ready)
        wake, waker = os.pipe()
        stack.callback(os.close, wake)
        found: queue.SimpleQueue[_Ready] = queue.SimpleQueue()
        stop = threading.Event()
        stack.callback(_release, found)
        stack.callback(stop.set)

        def look() -> None:
            # Only this thread, which can outlive the command, knows when its end of the pipe is not used any more.
            try:
                while not stop.wait(tag.pause):
                    if (moved := moves.next()) and (got := _pulled(moves, moved, store)):
                        found.put(got)
                        os.write(waker, b"1")
            except BrokenPipeError:
                pass  # the command has ended
            finally:
                os.close(waker)
                if stop.is_set():
                    _release(found)

        threading.Thread(target=look, name="lamella-follow", daemon=True).start()
        moving: int | None = wake
        while (code := session.wait(moving)) is None:
            if not os.read(wake, 1):
                moving = None  # the thread has died: the command goes on without it
                continue
            ready = found.get()
            if why_not := session.take(ready):
                moves.refuse(Reference.parse(ready.pulled.reference).digest, why_not)
        return code


def _release(found: queue.SimpleQueue[_Ready]) -> None:
    """End the leases of environments that the command did not live to use."""
    with suppress(queue.Empty):
        while True:
            found.get_nowait().stack.close()


def _pulled(moves: Moves, digest: Digest, store: Store) -> _Ready | None:
    began = time.monotonic()
    with ExitStack() as pulling:
        pulled = moves.pulled(digest, pulling)
        if pulled is None:
            return None
        try:
            ready = _leased(store, pulled, ExitStack(), began)
        except (LayersError, OSError) as error:
            moves.failed(f"{error}; retrying")
            return None
        moves.used = digest
        return ready


def _leased(store: Store, pulled: Pulled, stack: ExitStack, began: float) -> _Ready:
    lease = stack.enter_context(leases.lease(store, pulled.keeps, f"run --follow {pulled.reference}"))
    return _Ready(pulled, stack, lease, began)


class _Session:
    """The command that runs now, and the process in its namespace."""

    def __init__(
        self,
        command: Sequence[str],
        options: FollowOptions,
        store: Store,
        notify: Callable[[FollowEvent], object],
    ) -> None:
        self._command, self._options, self._store, self._notify = command, options, store, notify
        self._ready: _Ready | None = None
        self._former: list[_Ready] = []
        """Environments that processes of the command may still use; their leases end with this object."""
        self._socket: socket.socket | None = None
        self._helper = self._pid = 0
        self._former_handlers: signals.Handlers = {}
        self._waiting: list[int] = []

    def start(self, ready: _Ready) -> None:
        """Start the command in that environment. Raises what kept it from starting."""
        environment = ready.pulled.environment
        folders = lowerdirs.for_replacement(self._store, environment, environment.prefix)
        start = namespaced.Start(self._store, environment, folders, self._command, self._options.restart)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The command inherits it, and keeps its layers as long as it lives.
        os.set_inheritable(ready.lease, True)
        # Another thread takes a signal that this one blocks: it must find a handler, with which the signal waits for the command.
        if not self._former_handlers:
            self._former_handlers = signals.forward(self._send)
        with signals.blocked() as mask:
            with warnings.catch_warnings():
                # Python warns of forks beside threads, whose locks the child keeps for ever. It uses none of theirs.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._helper = os.fork()
            if self._helper == 0:
                self.restore_signals()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                ours.close()
                namespaced.serve(theirs, start)
            theirs.close()
            os.set_inheritable(ready.lease, False)
            self._socket, self._ready = ours, ready
            self._pid = self._started(self._answer())
        while self._waiting:
            self._send(self._waiting.pop(0))

    def _started(self, answer: dict[str, Any]) -> int:
        """Return the number of the command's process. Raises what kept it from starting."""
        if "pid" in answer:
            return int(answer["pid"])
        os.waitpid(self._helper, 0)
        if failed := answer.get("failed"):
            raise error_of(failed)
        raise LayersError("the command's namespace ended; try again")

    def wait(self, wake: int | None) -> int | None:
        """Wait until `wake`, if given, can be read, or the command ends; return its exit code then."""
        assert self._socket
        ready, _, _ = select.select([self._socket.fileno(), *([] if wake is None else [wake])], [], [])
        return None if ready == [wake] else self._ended()

    def take(self, ready: _Ready) -> str:
        """Use that environment from now on; return why it can't be used, or an empty string."""
        if self._options.restart:
            return self._restart(ready)
        assert self._ready
        assert self._socket
        environment, former = ready.pulled.environment, self._ready.pulled.environment
        if environment.prefix != former.prefix:
            ready.stack.close()
            return f"its image prefix is {environment.prefix}, not {former.prefix}; start the command again"
        folders = lowerdirs.for_replacement(self._store, environment, environment.prefix)
        request = json.dumps({"folders": folders, "signal": self._options.signal}).encode()
        try:
            socket.send_fds(self._socket, [request], [ready.lease])
        except OSError:
            return ""  # the command has ended
        answer = self._answer()
        if why_not := answer.get("why_not"):
            ready.stack.close()
            return str(why_not)
        if "replaced" in answer:
            # Its lease must stay: a process that is not known may use it, and a collected one is released.
            self._former.append(self._ready)
            self._ready = ready
            self._report("signalled" if self._options.signal else "replaced", ready)
        return ""

    def restore_signals(self) -> None:
        """Handle signals as before `start`."""
        signals.restore(self._former_handlers)
        self._former_handlers = {}

    def _restart(self, ready: _Ready) -> str:
        assert self._ready
        former = self._ready
        self._end()
        former.stack.close()
        try:
            self.start(ready)
        except LayersError as error:
            # The former environment may have been freed by now: the command ends as one that can't be started.
            raise CannotRun(f"{ready.pulled.reference}: cannot restart the command: {error}") from error
        self._report("restarted", ready)
        return ""

    def _end(self) -> None:
        assert self._socket
        self._send(signal.SIGTERM)
        ended, _, _ = select.select([self._socket], [], [], self._options.grace)
        if not ended:
            self._send(signal.SIGKILL)
        self._ended()

    def _ended(self) -> int:
        """Reap the process in the namespace, and return the exit code of the command."""
        code = os.waitstatus_to_exitcode(os.waitpid(self._helper, 0)[1])
        assert self._socket
        self._socket.close()
        self._pid = 0
        return code if code >= 0 else 128 - code

    def _answer(self) -> dict[str, Any]:
        assert self._socket
        try:
            packet = self._socket.recv(namespaced.PACKET)
        except ConnectionResetError:
            packet = b""  # it ended with a request unread
        answer: dict[str, Any] = json.loads(packet) if packet else {}
        return answer

    def _report(self, kind: Any, ready: _Ready) -> None:
        reference = ready.pulled.reference
        took = round(time.monotonic() - ready.began, 3)
        what = {"restarted": "restarted in", "signalled": "signalled after the move to"}.get(kind, "new processes use")
        self._notify(FollowEvent(kind, f"{what} {reference}", reference, ready.pulled.moved, took))

    def _send(self, number: int) -> None:
        if not self._pid:
            self._waiting.append(number)
            return
        with suppress(ProcessLookupError):
            os.kill(self._pid, number)
