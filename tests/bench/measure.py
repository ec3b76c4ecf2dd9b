"""What a command takes: seconds on the clock, and the largest memory of any of its processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Took:
    """One command's cost."""

    seconds: float
    peak: int
    """Bytes resident, of its largest process."""
    value: Mapping[str, Any] = field(default_factory=dict)
    """Its output, if that was JSON."""


class Failed(Exception):
    """A command that another comparison would have needed; the others go on."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, settings: Mapping[str, str] | None = None) -> Took:
    """Runs `command` to its end; `Failed` with what it said where it fails."""
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=complained,
            stdin=subprocess.DEVNULL,
            cwd=cwd,
            # Code of the working directory is not part of the comparison.
            env={**os.environ, "LAMELLA_LOCAL": "", **(settings or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        took = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            complained.seek(0)
            words = complained.read().decode(errors="replace").strip().splitlines() or ["nothing"]
            raise Failed(f"{' '.join(map(str, command))[:80]} said: {words[-1][:200]}")
        said.seek(0)
        output = said.read()
    # Linux counts in kilobytes.
    return Took(took, used.ru_maxrss * 1024, json.loads(output) if output.startswith(b"{") else {})


def lamella(*arguments: str | Path, settings: Mapping[str, str]) -> Took:
    """Runs a verb with --json."""
    head, tail = list(arguments), []
    if "--" in head:
        at = head.index("--")
        head, tail = head[:at], head[at:]
    quiet = [] if tail else ["--json"]
    return run([sys.executable, "-m", "lamella.cli", *head, "--quiet", *quiet, *tail], settings=settings)
