"""Progress by default."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import Any

from lamella.layers.progress.display import Cell, Silent, default_progress, shown
from support.processes import started

WORK = """
import sys
from lamella.layers.progress.display import shown
with shown(None) as progress:
    progress.begin("upload", 1000, "B")
    progress.advance("upload", 500)
    progress._drawn and progress._drawn.refresh()
    progress.end("upload")
assert "rich" in sys.modules
"""


def test_a_terminal_shows_bars_without_being_asked() -> None:
    ours, theirs = pty.openpty()
    try:
        with started([sys.executable, "-c", WORK], stderr=theirs, env={**os.environ, "TERM": "xterm"}) as child:
            os.close(theirs)
            written = b""
            try:
                while chunk := os.read(ours, 4096):
                    written += chunk
            except OSError:
                pass  # Linux: the other side is closed
            child.wait()
        assert child.returncode == 0
    finally:
        os.close(ours)
    assert b"upload" in written
    assert b"500 B of 1.0 kB" in written


def test_without_a_terminal_nothing_is_written_and_rich_is_not_imported() -> None:
    code = WORK.replace("progress._drawn and progress._drawn.refresh()", "").replace('"rich" in', '"rich" not in')
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stderr == b""
    assert isinstance(default_progress(), Silent)


def test_a_progress_that_is_given_is_taken() -> None:
    mine = Silent()
    with shown(mine) as progress:
        assert progress is mine


class Display:
    """Takes what a notebook would show, as IPython's `display` and its handle do."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, content: dict[str, Any], *, raw: bool, display_id: bool) -> Display:
        assert raw
        assert display_id
        self.update(content, raw=raw)
        return self

    def update(self, content: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.shown.append(content["text/plain"])


def test_a_notebooks_cell_shows_a_line_for_each_task_and_none_afterwards() -> None:
    display = Display()
    cell = Cell(display)
    cell.begin("reading", 10, "files")
    cell.begin("upload\x1b[2J", None, "B")
    assert display.shown[-1].splitlines() == [
        "reading                                  0 of 10 files",
        "upload\\x1b[2J  0 B",
    ]
    cell.advance("reading", 5)
    cell.end("upload\x1b[2J")
    assert display.shown[-1] == "reading        ████████████              5 of 10 files"
    cell.close()
    assert display.shown[-1] == ""
