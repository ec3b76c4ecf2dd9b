"""Processes that end with the test that starts them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import traceback
import warnings
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEADLINE = 60.0
"""Seconds after which a child that does not answer or end is a failure, whatever the load of the machine."""
_INHERITED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


def stop_ignoring_signals() -> None:
    """Let every process that starts from here receive the signals that this process's parent ignores.

    nohup and background jobs of a shell ignore some of them, every process below inherits that, and sh can't trap a signal
    that it ignored from its start. This process itself survives them still: a handler is not inherited through execve(2).
    """
    for number in _INHERITED:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _survive)


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `command` in a session of its own; kill that session's process group when the block ends.

    `options` are Popen's; streams are text. The group is what `command` starts as well, but for daemons.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def forked(do: Callable[[], object]) -> Iterator[int]:
    """Fork a child that calls `do` and exits with 0, or with 1 if it raises; kill it and its children when the block ends."""
    child = _fork()
    # In both, so that the group exists whichever of the two goes on first.
    os.setpgid(child, child)
    if not child:
        code = 1
        try:
            do()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ChildProcessError):  # the test has reaped it
            os.waitpid(child, 0)


def exit_code(do: Callable[[], object]) -> int:
    """Exit code of a forked child that calls `do`; negative if a signal ends it."""
    with forked(do) as child:
        return ended(child)


def ended(child: int, seconds: float = DEADLINE) -> int:
    """Wait for a child and return its exit code, negative if a signal ended it. Fails after `seconds`."""
    descriptor = os.pidfd_open(child)
    try:
        readable, _, _ = select.select([descriptor], [], [], seconds)
    finally:
        os.close(descriptor)
    assert readable, f"process {child} has not ended within {seconds:g} s"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Lines:
    """Lines of a pipe, each awaited for at most `seconds`: a process that hangs fails the test instead of hanging it."""

    def __init__(self, pipe: int | IO[str], seconds: float = DEADLINE) -> None:
        self._pipe = pipe if isinstance(pipe, int) else pipe.fileno()
        self._seconds = seconds
        self._read = b""

    def __iter__(self) -> Lines:
        return self

    def __next__(self) -> str:
        while b"\n" not in self._read:
            readable, _, _ = select.select([self._pipe], [], [], self._seconds)
            assert readable, f"no line within {self._seconds:g} s"
            if not (more := os.read(self._pipe, 1 << 16)):
                if not self._read:
                    raise StopIteration
                self._read += b"\n"
            self._read += more
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()


def _survive(number: int, frame: object) -> None:
    """Do nothing."""


def _fork() -> int:
    # The test runner has threads of its own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
