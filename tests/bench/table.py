"""Lines of the table that `make bench` prints, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.cli.tables import Column, aligned

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Took

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".bench"
"""Folder of results."""


@dataclass(frozen=True, slots=True)
class Line:
    """One comparison: Lamella's figure, the other's, and the limit of their ratio."""

    what: str
    ours: str
    beside: str = ""
    theirs: str = ""
    ratio: float | None = None
    budget: str = ""
    met: bool | None = None


def beside(what: str, ours: Took, name: str, theirs: Took, *, budget: float | None = None) -> Line:
    """Compare seconds on the clock."""
    return _compared(what, ours.seconds, name, theirs.seconds, budget)


def processors(what: str, ours: Took, name: str, theirs: Took, *, budget: float | None = None) -> Line:
    """Compare seconds of the processors, which depend less on what else the machine does."""
    return _compared(f"{what}: processors", ours.cpu, name, theirs.cpu, budget)


def _compared(what: str, ours: float, name: str, theirs: float, budget: float | None) -> Line:
    ratio = ours / theirs
    allowed = "" if budget is None else f"{budget:g}" if budget >= 1 else f"1/{round(1 / budget)}"
    return Line(
        what, f"{ours:.2f} s", name, f"{theirs:.2f} s", ratio, allowed, None if budget is None else ratio <= budget
    )


def absolute(what: str, value: float, budget: float, unit: str) -> Line:
    """Compare with a limit of its own."""
    return Line(what, f"{value:.3g} {unit}", budget=f"{budget:g} {unit}", met=value <= budget)


def show(lines: Sequence[Line]) -> None:
    """Print the table."""
    columns = (
        Column("what"), Column("lamella", "right"), Column("beside"), Column("", "right"), Column("ratio", "right"),
        Column("budget", "right"), Column(""),
    )  # fmt: skip
    verdict = {None: "", True: "met", False: "MISSED"}
    rows = [
        (
            line.what, line.ours, line.beside, line.theirs, "" if line.ratio is None else f"{line.ratio:.3g}",
            line.budget, verdict[line.met],
        )
        for line in lines
    ]  # fmt: skip
    for text in aligned(columns, rows):
        print(text)


def keep(name: str, prefix: Path, result: Mapping[str, object]) -> Path:
    """Write a result as JSON, with the machine, the commit and the load, to a file of its own."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    about = {
        "commit": told.stdout.strip(),
        "prefix": str(prefix),
        "python": sys.version.split()[0],
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
    }
    KEPT.mkdir(exist_ok=True)
    path = KEPT / f"{name}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    path.write_text(json.dumps(about | dict(result), indent=1) + "\n")
    return path


def values(lines: Sequence[Line]) -> list[dict[str, object]]:
    """Lines for a result."""
    return [dataclasses.asdict(line) for line in lines]
