"""Tables, sizes, durations and counts as text."""

from __future__ import annotations

import io
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.cli.output import event_line, result, table
from lamella.cli.tables import Column, cells, lines, wrapped
from lamella.layers.text import counted, seconds, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.cli.tables import Line


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


@pytest.mark.parametrize(
    ("kind", "message", "shown"),
    [("failed", "no space", "failed: no space"), ("restarted", "restarted in v2", "restarted in v2")],
)
def test_an_event_names_its_kind_once(kind: str, message: str, shown: str) -> None:
    assert event_line(kind, message)[8:] == f" {shown}"


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

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        ("80", ["Package          Layer      Size", "numpy-financial  01234  1,234 MB  ████████████"]),
        ("40", ["Package          Layer      Size", "numpy-financial  01234  1,234 MB"]),
        ("30", ["Package              Size", "numpy-financial  1,234 MB"]),
        ("20", ["Package         Size", "numpy-      1,234 MB", "financial"]),
        ("17", ["Package  numpy-", "         financia", "         l", "Layer    01234", "Size     1,234 MB"]),
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


def text(drawn: Iterable[Line]) -> list[str]:
    return ["".join(cell.text for cell in line) for line in drawn]


def test_a_table_without_rows_still_has_its_titles() -> None:
    assert text(lines((Column("Package"), Column("Size", "right")), [], None)) == ["Package  Size"]


COLUMNS = (
    Column("Package"),
    Column("Version"),
    Column("Reason", shrinks=True),
    Column("Layer", spare=True),
    Column("Size", "right"),
    Column("", bar=True),
)
WORDS = st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), min_size=1, max_size=20)


@given(st.lists(st.tuples(WORDS, WORDS, st.lists(WORDS).map(" ".join), WORDS), min_size=1), st.integers(20, 300))
@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal_and_no_text_is_lost(
    rows: list[tuple[str, str, str, str]], width: int
) -> None:
    full = [(*row, "118 MB", "0.5") for row in rows]
    drawn = text(lines(COLUMNS, full, width))
    assert max(map(cells, drawn)) <= width
    shown = "".join("".join(drawn).split())
    assert Counter("".join("".join(row[:3]) + "118MB" for row in rows).replace(" ", "")) <= Counter(shown)
    assert sum("118 MB" in line for line in drawn) == len(rows)


def test_a_word_that_would_be_in_many_pieces_makes_each_row_a_list_of_its_fields() -> None:
    columns = (Column("Environment", shrinks=True), Column("Size", "right"), Column("In use by", shrinks=True))
    rows = [
        ("localhost:5000/team/machine-learning/envs:v1", "224 MB", "mount at /srv/env"),
        ("oci:envs:v2", "9 MB", ""),
    ]
    assert text(lines(columns, rows, 40)) == [
        "Environment  localhost:5000/team/",
        "             machine-learning/envs:v1",
        "Size         224 MB",
        "In use by    mount at /srv/env",
        "",
        "Environment  oci:envs:v2",
        "Size         9 MB",
    ]
    assert text(lines(columns, rows, 55))[1:3] == [
        "localhost:5000/team/          224 MB  mount at /srv/env",
        "machine-learning/envs:v1",
    ]


def test_a_word_that_a_list_of_fields_would_break_too_stays_in_the_table() -> None:
    columns = (Column("Kind"), Column("What", shrinks=True))
    assert text(lines(columns, [("link", f"/{'x' * 100} is a loop")], 40))[0] == "Kind  What"


def test_wide_and_combining_characters_stay_aligned() -> None:
    columns = (Column("Package"), Column("Size", "right"))
    rows = [("数据-工具", "1.2 MB"), ("🎉-party", "9 kB"), ("cafe\u0301", "12 kB"), ("six", "118 kB")]
    for width in (None, 80):
        drawn = text(lines(columns, rows, width))
        assert {cells(line) for line in drawn} == {len("Package  ") + 2 + len("118 kB")}


@pytest.mark.parametrize(
    ("words", "width", "broken"),
    [
        ("one two three", 7, ["one two", "three"]),
        ("free 35 GB of 271 GB", 11, ["free 35 GB", "of 271 GB"]),
        ("free 271 GB", 9, ["free", "271 GB"]),
        ("registry.example.com/team/envs", 12, ["registry.", "example.com/", "team/envs"]),
        ("lib/python3.11/site-packages/six.py", 20, ["lib/python3.11/", "site-packages/six.py"]),
        (
            "lib/python3.11/__pycache__/six.cpython-311.pyc",
            16,
            ["lib/python3.11/", "__pycache__/", "six.cpython-311.", "pyc"],
        ),
        ("at /srv/env protobuf<8.0.0,>=6.33.5", 12, ["at /srv/env", "protobuf", "<8.0.0,", ">=6.33.5"]),
        ("a-3141592653589793", 12, ["a-3141592653", "589793"]),
        ("数据工具", 5, ["数据", "工具"]),
        ("", 5, [""]),
        ("  indented", 10, ["  indented"]),
    ],
)
def test_text_breaks_at_spaces_then_behind_parts_of_a_word_and_else_at_the_width(
    words: str, width: int, broken: list[str]
) -> None:
    assert wrapped(words, width) == broken


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("12 layers, 118 MB to download, 1.2 GB unpacked", "12 layers,\n118 MB to\ndownload, 1.2 GB\nunpacked"),
        ("oci:a-folder-with-a-long-name:v1", "oci:a-folder-with-a-long-name:v1"),
        ("frees 118 MB: lamella gc --older-than 30d", "frees 118 MB: lamella gc --older-than 30d"),
    ],
)
def test_a_sentence_breaks_at_spaces_and_commands_and_references_stay_whole(
    line: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "16")
    result(line)
    assert terminal.getvalue() == f"{shown}\n"


def test_a_terminal_that_cannot_show_bars_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr(Terminal, "encoding", "ascii")
    monkeypatch.setenv("TERM", "dumb")
    table((Column("Package"), Column("", bar=True)), [("six", "1.0")])
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == ["Package", "six"]


def test_control_characters_in_a_name_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    table((Column("Package"),), [("evil\x1b[2Jname",), ("bell\x07",), ("right\u202eleft",), ("two\nlines",)])
    assert capsys.readouterr().out == "Package\nevil\\x1b[2Jname\nbell\\x07\nright\\u202eleft\ntwo\\nlines\n"
