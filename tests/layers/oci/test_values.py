"""Numbers and strings that others wrote."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.oci.values import MAX_INT, bounded_decimal, bounded_int, clean_text


@given(st.integers(0, MAX_INT))
def test_every_size_of_a_file_is_read_as_number_and_as_text(number: int) -> None:
    assert bounded_int(number) == bounded_decimal(str(number)) == number


@pytest.mark.parametrize("value", [-1, MAX_INT + 1, 10**400, True, False, 1.0, float("inf"), "1", None, [], {}])
def test_other_values_of_json_are_not_bounded_numbers(value: object) -> None:
    assert bounded_int(value) is None


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", " 1", "1_0", "1.0", "0x1", "٣", "²", "9" * 19, "9" * 5000, "0" * 5000, 1, None]
)
def test_other_texts_are_not_bounded_numbers(text: object) -> None:
    assert bounded_decimal(text) is None


def test_a_number_above_its_own_bound_is_refused() -> None:
    assert (bounded_int(4, 4), bounded_int(5, 4)) == (4, None)
    assert (bounded_decimal("4", 4), bounded_decimal("5", 4)) == (4, None)


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50))
def test_text_that_a_file_name_can_hold_is_clean(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize("value", ["\ud800", "a\0b", "ü" * 2049, "x" * 4097, b"bytes", 1, None])
def test_text_that_a_file_name_cannot_hold_is_refused(value: object) -> None:
    assert clean_text(value) is None
