"""Medians and ratios of a comparison's runs: the numbers that its tables, charts and pages show."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lamella.comparison.result import Comparison, Run, Story, Workflow

REFERENCE = "lamella"
"""The workflow that ratios are of."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds of several runs."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Medians of the runs of one story through one workflow that succeeded."""

    workflow: Workflow
    runs: int
    """All runs, with those that failed."""
    failures: tuple[str, ...]
    """The sentence of each run that failed."""
    seconds: Spread | None
    """None if all runs failed; every other number is 0 then."""
    ratio: float | None
    """Its median by Lamella's; None for Lamella's own, and if either has none."""
    steps: tuple[tuple[str, float], ...]
    """Name and seconds of each step, in order."""
    uploaded: int
    downloaded: int
    registry_bytes: int | None
    """None for a registry that the user named: its storage is out of reach."""
    node_bytes: int
    peak_memory: int
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class StoryFigures:
    """One story through every workflow that ran it."""

    story: Story
    rows: tuple[Figures, ...]

    @property
    def fastest(self) -> Figures | None:
        """The row with the least median; None if all runs failed."""
        return min(
            (row for row in self.rows if row.seconds),
            key=lambda row: row.seconds.median if row.seconds else 0.0,
            default=None,
        )

    def row(self, workflow: str) -> Figures | None:
        """Return the row of a workflow; None if it did not run this story."""
        return next((row for row in self.rows if row.workflow.name == workflow), None)


def digits(seconds: float) -> str:
    """Return seconds with three digits, as one unit, so that rows can be compared: `0.42`, `12.3`, `1,204`."""
    if seconds < 9.995:
        return f"{seconds:.2f}"
    return f"{seconds:.1f}" if seconds < 99.95 else f"{seconds:,.0f}"


def ratio(value: float) -> str:
    """Return a ratio with two digits: `0.33x`, `4.0x`, `1,250x`."""
    if value < 0.995:
        return f"{value:.2g}x"
    return f"{value:.1f}x" if value < 9.95 else f"{value:,.0f}x"


def summarize(comparison: Comparison) -> tuple[StoryFigures, ...]:
    """Return the figures of each story that was run, in the document's order of stories and workflows."""
    runs: dict[tuple[str, str], list[Run]] = {}
    for run in comparison.runs:
        runs.setdefault((run.story, run.workflow), []).append(run)
    found = []
    for story in comparison.stories:
        reference = _median([run.seconds for run in runs.get((story.name, REFERENCE), ()) if run.failed is None])
        rows = tuple(
            _figures(workflow, runs[story.name, workflow.name], reference, given=comparison.registry.given)
            for workflow in comparison.workflows
            if (story.name, workflow.name) in runs
        )
        if rows:
            found.append(StoryFigures(story, rows))
    return tuple(found)


def _figures(workflow: Workflow, runs: Sequence[Run], reference: float, *, given: bool) -> Figures:
    good = [run for run in runs if run.failed is None]
    seconds = [run.seconds for run in good]
    spread = Spread(_median(seconds), min(seconds), max(seconds)) if good else None

    def middle(number: Callable[[Run], float]) -> int:
        return round(_median([number(run) for run in good]))

    return Figures(
        workflow=workflow,
        runs=len(runs),
        failures=tuple(run.failed for run in runs if run.failed is not None),
        seconds=spread,
        ratio=spread.median / reference if spread and reference > 0 and workflow.name != REFERENCE else None,
        steps=_steps(good),
        uploaded=middle(lambda run: run.uploaded),
        downloaded=middle(lambda run: run.downloaded),
        registry_bytes=None if given else middle(lambda run: run.registry_bytes),
        node_bytes=middle(lambda run: run.node_bytes),
        peak_memory=middle(lambda run: run.peak_memory),
        cpu_seconds=_median([run.cpu_seconds for run in good]),
    )


def _steps(runs: Sequence[Run]) -> tuple[tuple[str, float], ...]:
    """Return the steps of the run in the middle: medians of each step would not add up to the median of runs."""
    if not runs:
        return ()
    middle = sorted(runs, key=lambda run: run.seconds)[(len(runs) - 1) // 2]
    return tuple((step.name, step.seconds) for step in middle.steps)


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else 0.0
