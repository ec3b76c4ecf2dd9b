from __future__ import annotations

from dataclasses import replace

import pytest

from lamella.comparison.summary import Spread, StoryFigures, summarize
from support.comparisons import STORIES, comparison, run


def of(*runs_seconds: tuple[str, float, str | None]) -> StoryFigures:
    """The first story with a run for each workflow, seconds and failure."""
    runs = [replace(run(name, "new"), seconds=seconds, failed=failed) for name, seconds, failed in runs_seconds]
    (found,) = summarize(replace(comparison(), runs=tuple(runs)))
    return found


def test_figures_are_medians_with_their_spread_and_ratios_are_of_lamella_s_median() -> None:
    found = of(("docker-uv", 30.0, None), ("lamella", 5.0, None), ("docker-uv", 10.0, None), ("docker-uv", 20.0, None))
    ours, theirs = found.rows
    assert (ours.workflow.name, ours.seconds, ours.ratio) == ("lamella", Spread(5.0, 5.0, 5.0), None)
    assert (theirs.seconds, theirs.ratio, theirs.runs) == (Spread(20.0, 10.0, 30.0), 4.0, 3)


def test_failed_runs_count_in_no_median_and_keep_their_sentences() -> None:
    found = of(("lamella", 5.0, None), ("lamella", 0.1, "disk full"), ("docker-uv", 0.1, "no engine"))
    ours, theirs = found.rows
    assert (ours.seconds, ours.runs, ours.failures) == (Spread(5.0, 5.0, 5.0), 2, ("disk full",))
    assert (theirs.seconds, theirs.ratio, theirs.failures) == (None, None, ("no engine",))
    assert found.fastest is ours


def test_ratios_are_left_out_without_lamella_s_own_run() -> None:
    assert [row.ratio for row in of(("docker-uv", 10.0, None)).rows] == [None]
    assert [row.ratio for row in of(("lamella", 1.0, "broken"), ("docker-uv", 10.0, None)).rows] == [None, None]


def test_steps_are_those_of_one_run_and_add_up_to_its_seconds() -> None:
    for story in summarize(comparison(rounds=2)):
        for row in story.rows:
            if row.seconds:
                total = sum(seconds for _, seconds in row.steps)
                assert row.seconds.least - 0.01 <= total <= row.seconds.most + 0.01


def test_stories_keep_their_order_and_workflows_that_were_left_out_have_no_row() -> None:
    found = summarize(comparison())
    assert [story.story.name for story in found] == [story.name for story in STORIES]
    assert {row.workflow.name for story in found for row in story.rows} == {
        "lamella",
        "docker-uv",
        "docker-copy",
        "uv-warm",
    }


def test_a_comparison_that_was_interrupted_at_once_has_no_figures() -> None:
    assert summarize(replace(comparison(), runs=(), complete=False)) == ()


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_bytes_and_memory_are_medians_as_well(rounds: int) -> None:
    row = summarize(comparison(rounds))[0].row("lamella")
    assert row is not None
    assert (row.runs, row.peak_memory) == (rounds, 182_000_000)
    assert row.uploaded > row.downloaded > 0
