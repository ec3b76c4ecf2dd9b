"""Columns of the progress bars. A module of its own, since subclassing rich's columns imports rich."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from lamella.layers.text import size


class Amount(ProgressColumn):
    """`118 MB of 500 MB`, or `12 of 228 files`."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        unit = task.fields["unit"]
        done = size(task.completed) if unit == "B" else f"{int(task.completed):,}"
        if task.total is None:
            return Text(done if unit == "B" else f"{done} {unit}")
        total = size(task.total) if unit == "B" else f"{int(task.total):,} {unit}"
        return Text(f"{done} of {total}")


class Rate(ProgressColumn):
    """Bytes per second; empty for other units, such as files."""

    def render(self, task: Task) -> Text:
        """Return the column's text."""
        # The first files are often known from the cache: their rate would be absurd.
        speed = task.finished_speed or task.speed if (task.elapsed or 0) >= 1 else None
        return Text(f"{size(speed)}/s" if speed and task.fields["unit"] == "B" else "", style="dim")


def progress() -> Progress:
    """Return rich's progress with these columns, on stderr, erased when it stops."""
    return Progress(
        TextColumn("{task.description}", markup=True, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=32, complete_style="cyan", finished_style="green", pulse_style="cyan"),
        # On a narrow terminal the bar shrinks, and the numbers stay on one line.
        Amount(Column(no_wrap=True)),
        Rate(Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, elapsed_when_finished=False),
        console=Console(stderr=True),
        transient=True,
    )
