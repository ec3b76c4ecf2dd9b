"""Tables of the files in a package or layer, for `scan` and `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.cli.output import result, table
from lamella.cli.tables import Column
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Row:
    """A file as the table shows it."""

    path: str
    size: int | None
    """None if it is not known before the push."""
    note: str = ""


def show(name: str, origin: str, rows: Sequence[Row], where: str) -> None:
    """Print the files of one package, under a line that names it."""
    total = sum(row.size or 0 for row in rows)
    result(f"{name} ({origin}): {counted(len(rows), 'file')}, {size(total)}, {where}")
    notes = [Column("", shrinks=True)] if any(row.note for row in rows) else []
    table(
        (Column("Size", "right"), Column("Path", shrinks=True), *notes),
        [("" if row.size is None else size(row.size), row.path, *([row.note] if notes else [])) for row in rows],
    )
