"""Progress of long work: the interface that callers report to, and the default display."""

from __future__ import annotations

import importlib
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from lamella.layers.text import bar, escaped, size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_REDRAW_SECONDS = 0.2


class Progress(Protocol):
    """Receives the progress of tasks by name. Calls come from several threads; an implementation locks what it must."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """`task` starts, of `total` units ("B", "layers", "files"); None where the total is not known."""

    def advance(self, task: str, amount: int) -> None:
        """`amount` more units of `task` are done."""

    def end(self, task: str) -> None:
        """`task` is done."""


class Silent:
    """Discards all progress."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """Nothing."""

    def advance(self, task: str, amount: int) -> None:
        """Nothing."""

    def end(self, task: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Bars:
    """rich's bars on a terminal: the amount, the rate, the time left. They vanish when the work ends."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()
        self._ids: dict[str, TaskID] = {}
        self._drawn: RichProgress | None = None

    def close(self) -> None:
        """Clear the bars and show the cursor again."""
        if self._drawn:
            self._drawn.stop()

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """See `Progress`."""
        with self._lock:
            drawn = self._draw()
            self._ids[task] = drawn.add_task(escaped(task).replace("[", r"\["), total=total, unit=unit)

    def advance(self, task: str, amount: int) -> None:
        """See `Progress`."""
        with self._lock:
            if task in self._ids and self._drawn:
                self._drawn.advance(self._ids[task], amount)

    def end(self, task: str) -> None:
        """See `Progress`."""
        with self._lock:
            if task in self._ids and self._drawn:
                self._drawn.remove_task(self._ids.pop(task))
                if not self._ids:
                    # rich refreshes from a thread; a process that has threads may not enter a user namespace.
                    self._drawn.stop()
                    self._drawn = None

    def _draw(self) -> RichProgress:
        # Created at the first task: work without a long task neither imports rich nor draws.
        if self._drawn is None:
            from lamella.layers.progress.columns import progress

            self._drawn = progress()
            self._drawn.start()
        return self._drawn


class Cell:
    """One line for each task in a notebook's cell, redrawn in place. rich's bars need ipywidgets there."""

    def __init__(self, display: Any) -> None:
        self._display = display
        """`IPython.display.display`."""
        self._handle: Any = None
        import threading

        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[int, int | None, str]] = {}
        self._drawn = 0.0

    def close(self) -> None:
        """Empty the lines."""
        with self._lock:
            self._tasks.clear()
            if self._handle:
                self._draw()

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """See `Progress`."""
        with self._lock:
            self._tasks[task] = (0, total, unit)
            self._draw()

    def advance(self, task: str, amount: int) -> None:
        """See `Progress`."""
        with self._lock:
            if task in self._tasks:
                done, total, unit = self._tasks[task]
                self._tasks[task] = (done + amount, total, unit)
                if time.monotonic() - self._drawn >= _REDRAW_SECONDS:
                    self._draw()

    def end(self, task: str) -> None:
        """See `Progress`."""
        with self._lock:
            if self._tasks.pop(task, None):
                self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        lines = [_line(task, *counts) for task, counts in self._tasks.items()]
        content = {"text/plain": "\n".join(lines)}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def _line(task: str, done: int, total: int | None, unit: str) -> str:
    amount = size(done) if unit == "B" else f"{done:,}" if total else f"{done:,} {unit}"
    if not total:
        return f"{escaped(task):<13}  {amount}"
    whole = size(total) if unit == "B" else f"{total:,} {unit}"
    return f"{escaped(task):<13}  {bar(done / total, 24):<24}  {amount} of {whole}"


@contextmanager
def shown(progress: Progress | None) -> Iterator[Progress]:
    """Yield `progress`; if it is None, bars on a terminal, lines in a notebook's cell, and nothing elsewhere."""
    if progress is not None:
        yield progress
        return
    drawn = default_progress()
    try:
        yield drawn
    finally:
        drawn.close()


def default_progress() -> Bars | Cell | Silent:
    """The progress that fits where this process runs. Close it afterwards."""
    python = sys.modules.get("IPython")
    shell = python.get_ipython() if python else None
    if shell is not None and hasattr(shell, "kernel"):
        return Cell(importlib.import_module("IPython.display").display)
    return Bars() if sys.stderr is not None and sys.stderr.isatty() else Silent()
