"""Processes that end with the test that starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import traceback
import warnings
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

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
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _survive(number: int, frame: object) -> None:
    """Do nothing."""


def _fork() -> int:
    # The test runner has threads of its own.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
