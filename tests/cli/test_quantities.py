"""Quantities on the command line: sizes, ages, seconds and percentages."""

from __future__ import annotations

import pytest

from lamella.cli.errors import UsageError
from lamella.cli.quantities import age_of, seconds_of, share_of, size_of


@pytest.mark.parametrize(("text", "count"), [("20GB", 20 * 10**9), ("1.5 MB", 1_500_000), ("2KiB", 2048), ("7B", 7)])
def test_sizes_are_decimal_except_with_binary_units(text: str, count: int) -> None:
    assert size_of(text) == count


@pytest.mark.parametrize(
    ("text", "duration"), [("30d", 2_592_000), ("12h", 43_200), ("90min", 5400), ("2w", 1_209_600)]
)
def test_ages_are_in_minutes_hours_days_or_weeks(text: str, duration: float) -> None:
    assert age_of(text) == duration


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "5XB", "5 d d", "1e9"])
def test_an_invalid_size_is_rejected_with_an_example(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--keep .*: (invalid|no unit); use a number and a unit \(.*\), such as 20GB$"
    ):
        size_of(text)


@pytest.mark.parametrize("text", ["0", "-1", "ten", "nan", "1e9", ""])
def test_seconds_outside_their_range_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--every .*: not a number of seconds above 0; use 60 or the like$"):
        seconds_of(text, "--every")


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0", 0.0), ("99.5%", 0.995)])
def test_percentages_are_shares_below_one(text: str, share: float) -> None:
    assert share_of(text, "--min-free") == pytest.approx(share)


@pytest.mark.parametrize("text", ["100%", "-1%", "%", "nan%", "half"])
def test_percentages_outside_their_range_are_rejected(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--min-free .*: not a percentage from 0 to 99; use 10%$"):
        share_of(text, "--min-free")
