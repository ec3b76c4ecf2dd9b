"""Results on stdout, remarks on stderr; tables.

rich draws tables on a terminal; without one it is not imported.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lamella.layers.text import bar, escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.text import Text

_BAR = 12
"""Characters of a full bar."""


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


def result(line: str) -> None:
    """Print a line of the result to stdout."""
    print(escaped(line))


def result_json(value: Mapping[str, Any]) -> None:
    """Print the result to stdout as one JSON document. Keys keep their order."""
    print(json.dumps(value, indent=2))


def remark(line: str, *, quiet: bool = False) -> None:
    """Print a line about the work to stderr, unless `quiet`."""
    if not quiet:
        print(escaped(line), file=sys.stderr)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Print a table to stdout: drawn by rich on a terminal, else as aligned text with the same words."""
    cells = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells)
        return
    kept = [at for at, column in enumerate(columns) if not column.bar]
    for line in aligned([columns[at] for at in kept], [[row[at] for at in kept] for row in cells]):
        print(line)


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a plain-text table: columns as wide as their longest cell, two spaces apart."""
    lines = [_titles(columns), *rows]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return [
        "  ".join(
            cell.rjust(width) if column.align == "right" else cell.ljust(width)
            for cell, width, column in zip(line, widths, columns, strict=True)
        ).rstrip()
        for line in lines
    ]


def _draw(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    kept = _fitting(columns, rows, console.width)
    # Numbers stay whole: on a narrow terminal the column of names wraps.
    wraps = {at for at in kept if columns[at].shrinks} or {kept[0]}
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold dim", pad_edge=False)
    for at in kept:
        # As Text, not markup: a package may be called `[red]`.
        title = Text(columns[at].title)
        drawn.add_column(title, justify=columns[at].align, no_wrap=at not in wraps, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(columns[at], row[at]) for at in kept))
    console.print(drawn)


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the columns to draw: on a narrow terminal without bars, then without spare columns."""
    kept = list(range(len(columns)))
    for dropped in ("bar", "spare"):
        if any(columns[at].shrinks for at in kept) or _width(columns, rows, kept) <= width:
            break
        kept = [at for at in kept if not getattr(columns[at], dropped)]
    return kept


def _width(columns: Sequence[Column], rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    widths = [_BAR if columns[at].bar else max(len(row[at]) for row in (*rows, _titles(columns))) for at in kept]
    return sum(widths) + 2 * (len(kept) - 1)


def _titles(columns: Sequence[Column]) -> list[str]:
    return [column.title for column in columns]


def _cell(column: Column, text: str) -> Text:
    from rich.text import Text

    return Text(bar(float(text), _BAR), "cyan") if column.bar else Text(text, column.styles.get(text, column.style))
