"""Results on stdout, remarks on stderr; tables.

rich draws tables on a terminal; without one it is not imported.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.cli.tables import Column, Line

LOG = "LAMELLA_LOG"
_SHORT = 20
"""Characters that fit any terminal."""
# A path made of a URL has one slash.
_COMMAND = "lamella "
VERSION = 1
"""Of the documents of --json: rises when a field changes its meaning or goes. docs/reference/schemas describe them."""


def terminal_columns() -> int:
    """Return the columns of the terminal, or 80. shutil's function imports every compressor of the standard library."""
    stated = os.environ.get("COLUMNS", "")
    if stated.isdecimal() and 0 < int(stated) < 10_000:
        return int(stated)
    for stream in (sys.__stdout__, sys.__stderr__):
        try:
            if stream and (columns := os.get_terminal_size(stream.fileno()).columns):
                return columns
        except (OSError, ValueError):
            continue
    return 80


def result(line: str) -> None:
    """Print a line of the result to stdout."""
    print(_fitted(escaped(line), sys.stdout))


def result_json(value: Mapping[str, Any], to: TextIO | None = None) -> None:
    """Print the result to stdout as one JSON document; as one line to `to`. Keys keep their order."""
    print(json.dumps({"version": VERSION, **value}, indent=None if to else 2), file=to)


def event_json(value: Mapping[str, Any], to: TextIO | None = None) -> None:
    """Print an event of work that goes on to stdout, or `to`, as one JSON document in one line, at once."""
    print(json.dumps({"version": VERSION, "time": time.time(), **value}), file=to, flush=True)


def event_line(kind: str, message: str) -> str:
    """Return an event's line: the time, and its kind unless the message begins with that word."""
    label = "" if message.startswith(kind) else f"{kind}: "
    return f"{time.strftime('%H:%M:%S')} {label}{message}"


def remark(line: str, *, quiet: bool = False) -> None:
    """Print a line about the work to stderr, unless `quiet`."""
    if not quiet:
        tell(line)


def tell(line: str) -> None:
    """Print a line to stderr, as a record if LAMELLA_LOG asks for JSON."""
    if writes_records():
        from lamella.cli.logs import say

        say(line, sys.stderr)
    else:
        from lamella.cli.redaction import without_user

        # One write: print makes two, and another thread's line may come between them.
        sys.stderr.write(f"{_fitted(escaped(without_user(line)), sys.stderr)}\n")
        sys.stderr.flush()


def writes_records() -> bool:
    """Whether every line on stderr is a JSON document."""
    return os.environ.get(LOG) == "json"


def _fitted(line: str, stream: TextIO) -> str:
    """Return a sentence that is too long for a terminal in lines, so that the terminal does not cut its numbers.

    Commands stay whole, to be copied, and so do words, such as references.
    """
    if (line.isascii() and len(line) <= _SHORT) or not stream.isatty() or _COMMAND in line:
        return line
    from lamella.cli.tables import cells, wrapped

    width = terminal_columns()
    return line if any(cells(word) > width for word in line.split()) else "\n".join(wrapped(line, width))


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], stream: TextIO | None = None) -> None:
    """Print a table to `stream`, by default stdout: fitted to a terminal and in colour there, else as aligned text."""
    from lamella.cli.tables import aligned, lines

    stream = stream or sys.stdout
    shown = [[escaped(cell) for cell in row] for row in rows]
    if not stream.isatty() or not draws():
        for line in aligned(columns, shown):
            print(line, file=stream)
        return
    _draw(lines(columns, shown, terminal_columns(), bars=_draws_bars()), stream)


def draws() -> bool:
    """Whether rich is here, which draws bars and colours; the node's part of Lamella goes without."""
    from importlib.util import find_spec

    return find_spec("rich") is not None


def _draw(drawn: Sequence[Line], stream: TextIO) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=stream, highlight=False)
    for line in drawn:
        # As Text, not markup: a package may be called `[red]`.
        text = Text.assemble(*((cell.text, cell.style) for cell in line))
        console.print(text, no_wrap=True, overflow="ignore", crop=False)


def _draws_bars() -> bool:
    """Whether the encoding of stdout has the characters of bars."""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
