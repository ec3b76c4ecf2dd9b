"""The result of `lamella compare` as tables, one for each story."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.cli.output import remark, result, table
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from lamella.comparison import Comparison, Figures, StoryFigures

# From the most to the least important: a narrow terminal leaves out columns from the right.
COLUMNS = (
    Column("Workflow", style="bold", shrinks=True),
    Column("Seconds", "right"),
    Column("Ratio", "right"),
    Column("Least to most", "right", spare=True),
    Column("Up", "right", spare=True),
    Column("Down", "right", spare=True),
    Column("Registry", "right", spare=True),
    Column("Node", "right", spare=True),
    Column("Memory", "right", spare=True),
    Column("Processor", "right", spare=True),
)
LEGEND = (
    "Seconds: median from the change to the import on the node. Ratio: by Lamella's seconds. Up, Down: bytes on the wire."
    " Registry, Node: growth of their disks. Memory: peak. Processor: seconds of all processors."
    " A narrow terminal leaves out columns; --json and --report have every run."
)


def show_comparison(comparison: Comparison, *, quiet: bool = False) -> None:
    """Print the tables, the runs that failed, and the workflows that were left out and how to get them."""
    from lamella.comparison import summarize

    environment, machine = comparison.environment, comparison.machine
    result(
        f"{environment.prefix}: {environment.kind}, Python {environment.python},"
        f" {counted(environment.packages, 'package')}, {size(environment.bytes)}"
    )
    result(
        f"{machine.system}, {counted(machine.processors, 'processor')}, {size(machine.memory)} of memory;"
        f" one machine; each line: {comparison.network.line}; {counted(comparison.rounds, 'round')}"
    )
    for story in summarize(comparison):
        result("")
        result(f"{story.story.title}: {story.story.description}")
        table(COLUMNS, rows(story))
        for line in failures(story):
            result(line)
    left_out = [workflow for workflow in comparison.workflows if not workflow.available]
    if left_out:
        result("")
        result("Left out:")
        for workflow in left_out:
            result(f"  {workflow.title}: {workflow.missing}")
    if not comparison.complete:
        result("")
        result("Interrupted: runs that had not ended are missing.")
    remark(LEGEND, quiet=quiet)


def rows(story: StoryFigures) -> list[list[str]]:
    """Return a row of cells for each workflow."""
    return [_row(row) for row in story.rows]


def failures(story: StoryFigures) -> list[str]:
    """Return a line for each workflow with runs that failed, with the first one's sentence."""
    return [
        f"{row.workflow.title}: {len(row.failures)} of {counted(row.runs, 'run')} failed: {row.failures[0]}"
        for row in story.rows
        if row.failures
    ]


def _row(row: Figures) -> list[str]:
    from lamella.comparison import digits, ratio

    if row.seconds is None:
        return [row.workflow.title, "failed", *[""] * (len(COLUMNS) - 2)]
    several = row.runs - len(row.failures) > 1
    return [
        row.workflow.title,
        digits(row.seconds.median),
        "" if row.ratio is None else ratio(row.ratio),
        f"{digits(row.seconds.least)} to {digits(row.seconds.most)}" if several else "",
        size(row.uploaded),
        size(row.downloaded),
        "" if row.registry_bytes is None else size(row.registry_bytes),
        size(row.node_bytes),
        size(row.peak_memory),
        digits(row.cpu_seconds),
    ]
