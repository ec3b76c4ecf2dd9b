"""Lines in time, and lines that drip."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.layers.registry.deadline import Lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer


class Pieces(io.RawIOBase):
    """Gives one piece for each read, as a socket does."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.pieces = list(pieces)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        piece = self.pieces.pop(0) if self.pieces else b""
        memoryview(buffer)[: len(piece)] = piece
        return len(piece)


def lines(pieces: Sequence[bytes], window: float) -> Lines:
    return Lines(io.BufferedReader(Pieces(pieces)), window)


@given(st.lists(st.binary(min_size=1, max_size=20)), st.integers(-1, 30))
def test_lines_equal_those_of_any_stream(pieces: list[bytes], limit: int) -> None:
    ours, theirs = lines(pieces, 1000), io.BytesIO(b"".join(pieces))
    for _ in range(len(pieces) + 3):
        assert ours.readline(limit) == theirs.readline(limit)
    assert ours.read() == theirs.read()


def test_a_head_has_its_time_for_all_lines_together() -> None:
    slow = lines([b"HTTP/1.1 200 OK\r\n", b"A: 1\r\n"], -1)
    assert slow.readline() == b"HTTP/1.1 200 OK\r\n"
    with pytest.raises(TimeoutError):
        slow.readline()


def test_a_line_of_a_body_has_its_time_from_its_first_byte() -> None:
    slow = lines([b"5\r\n", b"6\r\n", b"1", b"0\r\n"], -1)
    slow.head_ends()
    assert [slow.readline(), slow.readline()] == [b"5\r\n", b"6\r\n"]
    with pytest.raises(TimeoutError):
        slow.readline()
