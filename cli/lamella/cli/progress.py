"""Progress of long work, on stderr: bars on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lamella.cli.output import counted, printable, seconds, size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from lamella.layers.progress import Progress

EVERY_SECONDS = 5.0
"""How often a plain line may come: often enough to see life in a CI log, seldom enough to read it."""


@contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """The progress that fits where stderr goes."""
    if quiet:
        from lamella.layers.progress import Silent

        yield Silent()
    elif sys.stderr.isatty():
        bars = Bars()
        try:
            yield bars
        finally:
            bars.close()
    else:
        yield Lines()


class Lines:
    """A line for a task that takes long, at most one each five seconds; none for one that doesn't."""

    def __init__(
        self, write: Callable[[str], object] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write or (lambda line: print(line, file=sys.stderr, flush=True))
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            now = self._clock()
            self._tasks[task] = _Task(total, unit, now, now)

    def advance(self, task: str, amount: int) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            state = self._tasks.get(task)
            if state is None:
                return
            state.done += amount
            now = self._clock()
            if now - state.told >= EVERY_SECONDS:
                state.told = now
                self._write(f"{printable(task)}: {state.text(now)}")

    def end(self, task: str) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            state = self._tasks.pop(task, None)
            now = self._clock()
            if state and state.told > state.began:
                self._write(f"{printable(task)}: {_amount(state.done, state.unit)} in {seconds(now - state.began)}")


class _Task:
    """One task's counts."""

    __slots__ = ("began", "done", "told", "total", "unit")

    def __init__(self, total: int | None, unit: str, began: float, told: float) -> None:
        self.total = total
        self.unit = unit
        self.began = began
        self.told = told
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


class Bars:
    """rich's bars: what is done, how fast, how long it will take. They vanish when the work is done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ids: dict[str, TaskID] = {}
        self._drawn: RichProgress | None = None

    def close(self) -> None:
        """Takes the bars off the terminal and gives the cursor back."""
        if self._drawn:
            self._drawn.stop()

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            drawn = self._draw()
            self._ids[task] = drawn.add_task(printable(task).replace("[", r"\["), total=total, unit=unit)

    def advance(self, task: str, amount: int) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            if task in self._ids and self._drawn:
                self._drawn.advance(self._ids[task], amount)

    def end(self, task: str) -> None:
        """See `lamella.layers.progress.Progress`."""
        with self._lock:
            if task in self._ids and self._drawn:
                self._drawn.remove_task(self._ids.pop(task))
                if not self._ids:
                    # rich refreshes from a thread; a process that has threads may not enter a user namespace.
                    self._drawn.stop()
                    self._drawn = None

    def _draw(self) -> RichProgress:
        # Made at the first task: a verb with nothing long to do imports nothing and draws nothing.
        if self._drawn is None:
            from lamella.cli.bars import progress

            self._drawn = progress()
            self._drawn.start()
        return self._drawn
