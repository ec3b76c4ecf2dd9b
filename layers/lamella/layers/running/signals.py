"""Signals of a process that waits for a command: those that would end it are the command's."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_FROM_TERMINALS = (signal.SIGINT, signal.SIGQUIT)

Handlers = dict[signal.Signals, Any]


@contextmanager
def blocked() -> Iterator[set[signal.Signals]]:
    """Have these signals wait until the block ends; gives the mask that was before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    try:
        yield before  # type: ignore[misc] # numbers that have no name stand for themselves
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def forward(send: Callable[[int], object]) -> Handlers:
    """Call `send` with each signal that comes, in place of the handlers, which are returned for `restore`."""

    def handle(number: int, _: object) -> None:
        # The terminal sends its own to both; a command that got two would think that it is asked twice.
        if number not in _FROM_TERMINALS or not _in_foreground():
            send(number)

    if threading.current_thread() is not threading.main_thread():
        return {}  # Python handles signals in the main thread alone
    before = {number: signal.getsignal(number) for number in FORWARDED}
    # A signal that is ignored here is ignored there.
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    return before


def restore(handlers: Mapping[signal.Signals, Any]) -> None:
    """Handle signals as before `forward`."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether this process is in the foreground of a terminal, which sends its signals to all processes of the group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
