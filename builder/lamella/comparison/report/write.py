"""Write the page of a comparison with its charts and its raw data into a folder."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.result import document
from lamella.comparison.summary import summarize

if TYPE_CHECKING:
    from lamella.comparison.result import Comparison

PAGE, DATA = "index.html", "result.json"
CHARTS = ("seconds.svg", "bytes.svg", "disk.svg")
FILES = (PAGE, DATA, *CHARTS)
_COLUMNS = 2
"""Panels beside each other in the files; a page has one chart for each story."""


def check_report(folder: str | os.PathLike[str]) -> None:
    """Check before anything runs that a report can be drawn, and written to `folder`.

    Raises:
        ComparisonError: a package is missing, or the folder cannot be written, or holds other files.
    """
    for name in ("matplotlib", "jinja2"):
        if find_spec(name) is None:
            raise ComparisonError(
                f"--report {folder}: the package {name} is missing; install Lamella with its extra: lamella[report]"
            )
    path = Path(folder)
    try:
        # As far as the folder exists: a folder that is made now would stay behind if the comparison fails.
        if path.is_dir():
            others = {each.name for each in path.iterdir() if each.name not in FILES and not each.name.startswith(".")}
            if others:
                raise ComparisonError(
                    f"--report {folder}: has other files, such as {min(others)!r}; name an empty or a new folder",
                    code="invalid",
                )
        above = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
        if not above.is_dir():
            raise ComparisonError(
                f"--report {folder}: {above} is not a directory; name an empty or a new folder", code="invalid"
            )
        if not os.access(above, os.W_OK | os.X_OK):
            raise ComparisonError(f"--report {folder}: {above} cannot be written; name another folder")
    except OSError as error:
        raise ComparisonError(f"--report {folder}: {error.strerror}; name another folder") from error


def write_report(comparison: Comparison, folder: str | os.PathLike[str]) -> Path:
    """Write `FILES` into `folder`, made if missing, and return the page's path. An earlier report is replaced.

    The same comparison gives the same bytes. Each file is replaced as a whole, the page last.

    Raises:
        ComparisonError: as `check_report`, or a write failed.
    """
    check_report(folder)
    from lamella.comparison.report.charts import WIDE, draw, standalone
    from lamella.comparison.report.figures import KINDS, figure
    from lamella.comparison.report.page import page

    stories = summarize(comparison)
    charts = (
        {f"{kind}.svg": standalone(draw(figure(kind, stories), _COLUMNS, WIDE)) for kind in KINDS} if stories else {}
    )
    contents = {
        **charts,
        DATA: json.dumps(document(comparison), indent=1) + "\n",
        PAGE: page(comparison, tuple(charts)),
    }
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _replace(target / name, content)
    except OSError as error:
        raise ComparisonError(f"--report {folder}: {error.strerror}; name another folder") from error
    return target / PAGE


def _replace(path: Path, content: str) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
