"""The tables of `lamella compare` at several widths. The results in them are invented."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lamella.cli.comparison_table import COLUMNS, failures, rows, show_comparison
from lamella.cli.tables import cells, lines
from lamella.comparison import Comparison, summarize
from support.comparisons import comparison


def drawn(of: Comparison, width: int | None) -> list[str]:
    """Every story's table as text."""
    return [
        "".join(cell.text for cell in line) for story in summarize(of) for line in lines(COLUMNS, rows(story), width)
    ]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120, 200])
def test_tables_fit_any_terminal_and_cut_no_number(width: int) -> None:
    whole = {number for line in drawn(comparison(), None) for number in re.findall(r"[\d.,]+x?", line)}
    for line in drawn(comparison(), width):
        assert cells(line) <= width
        assert set(re.findall(r"[\d.,]+x?", line)) <= whole


@pytest.mark.parametrize(("width", "last"), [(60, "Least to most"), (80, "Registry"), (200, "Processor")])
def test_a_wider_terminal_shows_more_columns(width: int, last: str) -> None:
    assert drawn(comparison(), width)[0].endswith(last)


def test_one_round_has_no_spread() -> None:
    assert not [line for line in drawn(comparison(rounds=1), None) if re.search(r"\d to \d", line)]
    assert [line for line in drawn(comparison(rounds=2), None) if re.search(r"\d to \d", line)]


def test_failures_are_counted_and_their_first_sentence_is_shown() -> None:
    sharing = summarize(comparison())[5]
    assert failures(sharing) == ["Docker, COPY: 1 of 3 runs failed: docker build: exit code 1: no space left on device"]


def test_a_workflow_that_failed_always_has_a_row_without_numbers() -> None:
    broken = replace(comparison(), runs=tuple(replace(run, failed="broken") for run in comparison().runs))
    assert all(row[1:] == ["failed", *[""] * 8] for story in summarize(broken) for row in rows(story))


def test_the_tables_name_environment_machine_network_and_missing_programs(capsys: pytest.CaptureFixture[str]) -> None:
    show_comparison(replace(comparison(), complete=False))
    shown = capsys.readouterr()
    for text in (
        "/home/ada/project/.venv: venv, Python 3.11.2, 228 packages, 2.0 GB",
        "2 processors, 8.0 GB of memory; one machine; each line: 1000 Mbit/s and 2 ms each way; 3 rounds",
        "One small package upgraded: idna, 0.3 MB, in another version.",
        "  conda-pack, tar.zst: conda-pack: not found; pip install conda-pack",
        "Interrupted: runs that had not ended are missing.",
    ):
        assert f"{text}\n" in shown.out
    assert shown.err.startswith("Seconds: median")
    show_comparison(comparison(), quiet=True)
    assert capsys.readouterr().err == ""


def test_a_title_with_control_characters_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    found = comparison(rounds=1)
    show_comparison(replace(found, workflows=tuple(replace(each, title="\x1b[31mred") for each in found.workflows)))
    assert "\x1b" not in capsys.readouterr().out
