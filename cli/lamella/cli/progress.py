"""Progress of long work, on stderr: bars on a terminal, else an occasional line."""

from __future__ import annotations

import sys
import time
from _thread import allocate_lock  # as threading.Lock, whose module takes a millisecond of every start
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lamella.cli.output import draws, tell
from lamella.layers.text import counted, escaped, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamella.layers import Progress

FIRST_SECONDS = 5.0
"""Time before the first plain line of a task; each later one waits twice as long as the one before, up to `MOST_SECONDS`.

A CI log shows activity and stays readable.
"""
MOST_SECONDS = 60.0


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """Yield progress for stderr: bars on a terminal, else lines; discarded if `quiet`."""
    if quiet:
        from lamella.layers import Silent

        yield Silent()
    elif sys.stderr.isatty() and "lamella.cli.logs" not in sys.modules and draws():
        # Records between bars would tear them.
        from lamella.layers import Bars

        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield Lines()


class Lines:
    """Plain lines for long tasks, at growing intervals for each; short tasks print nothing."""

    def __init__(
        self, write: Callable[[str], object] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write or tell
        self._clock = clock
        self._lock = allocate_lock()
        self._tasks: dict[str, _Task] = {}

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """See `lamella.layers.Progress`."""
        with self._lock:
            now = self._clock()
            self._tasks[task] = _Task(total, unit, now)

    def advance(self, task: str, amount: int) -> None:
        """See `lamella.layers.Progress`."""
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state.done += amount
            now = self._clock()
            if now - state.last_line >= state.pause:
                state.last_line = now
                state.pause = min(2 * state.pause, MOST_SECONDS)
                self._write(f"{escaped(task)}: {state.text(now)}")

    def end(self, task: str) -> None:
        """See `lamella.layers.Progress`."""
        with self._lock:
            state = self._tasks.pop(task, None)
            now = self._clock()
            if state and state.last_line > state.began:
                self._write(f"{escaped(task)}: {_amount(state.done, state.unit)} in {seconds(now - state.began)}")


class _Task:
    """Counts of one task."""

    __slots__ = ("began", "done", "last_line", "pause", "total", "unit")

    def __init__(self, total: int | None, unit: str, began: float) -> None:
        self.total = total
        self.unit = unit
        self.began = began
        self.last_line = began
        self.pause = FIRST_SECONDS
        self.done = 0

    def text(self, now: float) -> str:
        done = _amount(self.done, self.unit)
        rate = self.done / max(now - self.began, 1e-9)
        speed = f", {size(rate)}/s" if self.unit == "B" else ""
        if not self.total:
            return f"{done}{speed}"
        left = f", {seconds((self.total - self.done) / rate)} left" if 0 < self.done < self.total else ""
        share = min(100, self.done * 100 // self.total)
        return f"{done} of {_amount(self.total, self.unit)} ({share} %){speed}{left}"


def _amount(count: int, unit: str) -> str:
    return size(count) if unit == "B" else f"{counted(count, unit.removesuffix('s'))}"
