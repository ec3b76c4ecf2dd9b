"""Lines of the comparison: each client reaches the registry and the index over a counted one of its own."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.comparison.measuring.wire import Counts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.comparison.options import CompareOptions
    from lamella.comparison.programs.commands import Commands


@dataclass(frozen=True, slots=True)
class Wire:
    """The line of one machine to one server."""

    host: str
    """HOST:PORT that the machine's clients use."""
    counts: Counts


@contextlib.contextmanager
def wire(commands: Commands, server: str, folder: str, options: CompareOptions) -> Iterator[Wire]:
    """Lay a line to `server`, HOST:PORT, with its counts in `folder`, until the context is left."""
    path = os.path.join(folder, "counts")
    command = [sys.executable, "-m", "lamella.comparison.measuring.wire", server, path]
    if options.delay_ms:
        command += ["--delay", str(options.delay_ms / 1000)]
    if options.megabits:
        command += ["--rate", str(options.megabits * 1e6 / 8)]
    os.makedirs(folder, exist_ok=True)
    counts = Counts(path)
    with contextlib.closing(counts), commands.daemon(command, "port ", is_server=True) as line:
        yield Wire(f"localhost:{line.removeprefix('port ')}", counts)
