"""Foreign text as people see it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.text import escaped


@given(st.text())
def test_printable_text_stays_and_everything_else_is_escaped(text: str) -> None:
    shown = escaped(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


@pytest.mark.parametrize("foreign", ["\x1b[2J", "\x9b2J", "\u202e", "\ud800", "a\r\nb", b"\xff\x1b", b"\xed\xa0\x80"])
def test_nothing_that_controls_a_terminal_is_left(foreign: str | bytes) -> None:
    shown = escaped(foreign)
    assert shown.isprintable()
    assert shown.encode()


@given(st.one_of(st.text(), st.binary()), st.integers(1, 20))
def test_long_text_is_cut_and_the_cut_is_marked(foreign: str | bytes, limit: int) -> None:
    shown = escaped(foreign, limit)
    whole = foreign.decode("utf-8", "backslashreplace") if isinstance(foreign, bytes) else foreign
    assert shown == (escaped(whole[:limit]) + "…" if len(whole) > limit else escaped(whole))
