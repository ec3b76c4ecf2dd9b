"""Tables, sizes, durations and counts as text."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.cli.output import Column, aligned, table
from lamella.layers.text import counted, seconds, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9951, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (117_900_000, "118 MB"),
        (1_940_000_000, "1.9 GB"),
        (5_000_000_000_000_000, "5.0 PB"),
    ],
)
def test_sizes_have_two_or_three_digits_and_decimal_units(count: int, text: str) -> None:
    assert size(count) == text


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_larger_size_never_looks_smaller(one: int, other: int) -> None:
    def value(text: str) -> float:
        number, unit = text.split()
        return float(number) * 1000.0 ** ("B", "kB", "MB", "GB", "TB", "PB").index(unit)

    small, large = sorted((one, other))
    assert value(size(small)) <= value(size(large))


@pytest.mark.parametrize(("duration", "text"), [(0.123, "0.12 s"), (12.34, "12.3 s"), (125.9, "2 min 5 s")])
def test_durations_lose_decimals_as_they_grow(duration: float, text: str) -> None:
    assert seconds(duration) == text


def test_counts_agree_with_their_nouns() -> None:
    assert [counted(n, "layer") for n in (0, 1, 12_000)] == ["0 layers", "1 layer", "12,000 layers"]


def test_a_table_without_a_terminal_is_aligned_text_without_trailing_spaces(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table(
        (Column("Package"), Column("Size", "right"), Column("", bar=True)),
        [("numpy", "18 MB", "1.0"), ("six", "9 kB", "0.1")],
    )
    assert capsys.readouterr().out == "Package   Size\nnumpy    18 MB\nsix       9 kB\n"


class Terminal(io.StringIO):
    """A terminal to print on."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        ("80", ["Package          Layer      Size", "numpy-financial  01234  1,234 MB  ████████████"]),
        ("40", ["Package          Layer      Size", "numpy-financial  01234  1,234 MB"]),
        ("30", ["Package              Size", "numpy-financial  1,234 MB"]),
        ("20", ["Package         Size", "numpy-fina  1,234 MB", "ncial"]),
    ],
)
def test_a_narrow_terminal_loses_bars_then_spare_columns_and_keeps_numbers_whole(
    width: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", width)
    # Without LINES rich takes a terminal without styles for 80 columns wide.
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("TERM", "dumb")
    columns = (Column("Package"), Column("Layer", spare=True), Column("Size", "right"), Column("", bar=True))
    table(columns, [("numpy-financial", "01234", "1,234 MB", "1.0")])
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == lines


def test_a_table_without_rows_still_has_its_titles() -> None:
    assert aligned((Column("Package"), Column("Size", "right")), []) == ["Package  Size"]


def test_control_characters_in_a_name_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    table((Column("Package"),), [("evil\x1b[2Jname",), ("bell\x07",), ("right\u202eleft",), ("two\nlines",)])
    assert capsys.readouterr().out == "Package\nevil\\x1b[2Jname\nbell\\x07\nright\\u202eleft\ntwo\\nlines\n"
