"""Tables as lines of cells, for a terminal of any width or for a file: a value, made without I/O.

On a terminal that is too narrow, a table first loses its bars, then its spare columns, from the right; then long text wraps;
and if the numbers alone do not fit, or a long word would be in pieces, each row becomes a list of its fields. A size or version
is never cut.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lamella.layers.text import bar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BAR = 12
"""Characters of a full bar."""
GAP = 2
"""Spaces between columns."""
NARROWEST = 10
"""Characters of a column whose text wraps, at least."""
PIECES = 2
"""Lines that a word, such as a path or reference, may take in a column; in more it is hard to read, and to copy."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table. Styles are rich's, for terminals only."""

    title: str
    align: Literal["left", "right"] = "left"
    style: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)
    """Styles for cells by their text, such as the severities."""
    shrinks: bool = False
    """Wrap long text over several lines; other columns stay whole."""
    bar: bool = False
    """Draw a share from 0 to 1 as a bar, on terminals only; another column holds the number."""
    spare: bool = False
    """Left out on a terminal that is too narrow for the whole table."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A part of a line with its style."""

    text: str
    style: str = ""


_SPACE = re.compile(r"(?<!\d) | (?!(?:[kMGTP]?B|s|min|ms)\b)")
"""A space where a line may break: not the one of `271 GB`."""
_ENDS = (re.compile("/"), re.compile(r"[:,;@-]|\.(?!\d)|\w(?=[<>=!~])"))
"""Ends of a part of a path, and of a file's name, reference, media type or requirement: a word breaks behind one, not in `3.11`."""
TITLE = "bold dim"
Line = list[Cell]


def lines(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None, *, bars: bool = True
) -> list[Line]:
    """Return a table's lines, at most `width` characters wide; None for a file, which has no bars and no limit."""
    kept = [at for at, column in enumerate(columns) if not column.bar or (bars and width is not None)]
    widths = {at: _natural(columns[at], [row[at] for row in rows]) for at in kept}
    if width is not None:
        for at in [*_dropped(columns, "bar"), *reversed(_dropped(columns, "spare"))]:
            if _total(widths) > width:
                widths.pop(at, None)
        if not _shrink(columns, widths, width) or _in_pieces(columns, rows, widths, width):
            return _records(columns, rows, width)
    titles: Line = [Cell(columns[at].title, TITLE) for at in widths]
    drawn = _row(columns, widths, titles)
    for row in rows:
        drawn += _row(columns, widths, [_cell(columns[at], row[at]) for at in widths])
    return drawn


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table's lines for a file, as text."""
    return ["".join(cell.text for cell in line) for line in lines(columns, rows, None)]


def cells(text: str) -> int:
    """Return the columns of a terminal that `text` takes: two for a wide character, none for one that combines."""
    if text.isascii():
        return len(text)
    return sum(_cells(letter) for letter in text)


def wrapped(text: str, width: int) -> list[str]:
    """Return `text` in lines of at most `width` columns, broken at spaces if possible, never between number and unit.

    A word that is too long breaks behind one of its parts if possible.
    """
    if cells(text) <= width:
        return [text]
    found, line = [], ""
    for word in _SPACE.split(text):
        if line and cells(line) + 1 + cells(word) > width:
            found.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
        while cells(line) > width:
            part = _part(line, width)
            found.append(part)
            line = line[len(part) :]
    return [*found, line] if line or not found else found


def _cells(letter: str) -> int:
    import unicodedata

    if unicodedata.combining(letter) or unicodedata.category(letter) in {"Mn", "Me", "Cf"}:
        return 0
    return 2 if unicodedata.east_asian_width(letter) in {"W", "F"} else 1


def _part(text: str, width: int) -> str:
    """Return the beginning of `text` that fits, up to the end of a part unless all are in its first third."""
    head = _head(text, width)
    for end in _ENDS:
        at = max((found.end() for found in end.finditer(text) if found.end() <= len(head)), default=0)
        if at * 3 > len(head):
            return head[:at]
    return head


def _head(text: str, width: int) -> str:
    taken = 0
    for at, letter in enumerate(text):
        taken += _cells(letter)
        if taken > width:
            return text[: max(at, 1)]
    return text


def _dropped(columns: Sequence[Column], kind: Literal["bar", "spare"]) -> list[int]:
    return [at for at, column in enumerate(columns) if getattr(column, kind)]


def _natural(column: Column, texts: Sequence[str]) -> int:
    return BAR if column.bar else max(map(cells, [column.title, *texts]))


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


def _shrink(columns: Sequence[Column], widths: dict[int, int], width: int) -> bool:
    """Narrow the columns that wrap until the table fits; return whether it does."""
    # Numbers stay whole: without a column of text, the one of names wraps.
    wraps = [at for at in widths if columns[at].shrinks] or [at for at in widths if columns[at].title][:1]
    while (excess := _total(widths) - width) > 0:
        widest = max(wraps, key=lambda at: widths[at])
        others = [widths[at] for at in wraps if at != widest]
        least = max(NARROWEST, cells(columns[widest].title), min(max(others, default=0), widths[widest] - 1))
        if widths[widest] <= least:
            return False
        widths[widest] = max(least, widths[widest] - excess)
    return True


def _in_pieces(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Mapping[int, int], width: int) -> bool:
    """Whether a word is in many pieces that a list of fields would spare it."""
    for at, room in widths.items():
        # The cells of a column that was not narrowed fit.
        long = [word for row in rows if cells(row[at]) > room for word in _SPACE.split(row[at]) if cells(word) > room]
        for word in long:
            pieces = len(wrapped(word, room))
            if pieces > PIECES and pieces - len(wrapped(word, width - _label(columns))) >= PIECES:
                return True
    return False


def _cell(column: Column, text: str) -> Cell:
    return Cell(bar(float(text), BAR), "cyan") if column.bar else Cell(text, column.styles.get(text, column.style))


def _row(columns: Sequence[Column], widths: Mapping[int, int], row: Line) -> list[Line]:
    """Return a row's lines: several if a cell wraps."""
    parts = [wrapped(cell.text, room) for cell, room in zip(row, widths.values(), strict=True)]
    found = []
    for number in range(max(map(len, parts))):
        line: Line = []
        for at, cell, part, room in zip(widths, row, parts, widths.values(), strict=True):
            text = part[number] if number < len(part) else ""
            space = " " * (room - cells(text))
            line.append(Cell(space + text if columns[at].align == "right" else text + space, cell.style))
        found.append(_stripped(line))
    return found


def _stripped(line: Line) -> Line:
    """Return a line with gaps between its cells, and without spaces at its end."""
    while line and not line[-1].text.strip():
        line = line[:-1]
    if not line:
        return []
    spaced = [Cell(cell.text + " " * GAP, cell.style) for cell in line[:-1]]
    return [*spaced, Cell(line[-1].text.rstrip(), line[-1].style)]


def _label(columns: Sequence[Column]) -> int:
    """Return the characters before a field in a list of fields."""
    return max(cells(column.title) for column in columns if not column.bar) + GAP


def _records(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[Line]:
    """Return the fields of each row below each other."""
    shown = [at for at, column in enumerate(columns) if not column.bar]
    room = _label(columns)
    found: list[Line] = []
    for row in rows:
        found += [[]] if found else []
        for at in shown:
            style = _cell(columns[at], row[at]).style
            for number, part in enumerate(wrapped(row[at], max(width - room, 1)) if row[at] else []):
                title = "" if number else columns[at].title
                found.append([Cell(title + " " * (room - cells(title)), TITLE), Cell(part, style)])
    return found
