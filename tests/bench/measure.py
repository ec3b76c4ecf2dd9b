"""Cost of a command: seconds on the clock, seconds of the processors, and peak memory of its largest process."""

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
    """Cost of one command."""

    seconds: float
    """On the clock: depends on what else the machine does."""
    peak: int
    """Bytes resident, of its largest process."""
    value: Mapping[str, Any] = field(default_factory=dict)
    """Its output if that was JSON."""
    cpu: float = 0.0
    """Seconds of the processors, of all its processes."""


class Failed(Exception):
    """A command of one comparison failed; the others go on."""


def run(command: Sequence[str | Path], *, cwd: Path | None = None, settings: Mapping[str, str] | None = None) -> Took:
    """Run `command` to its end. Raises `Failed` with its last line of errors if it fails."""
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
    value = json.loads(output) if output.startswith(b"{") else {}
    return Took(took, used.ru_maxrss * 1024, value, used.ru_utime + used.ru_stime)


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Variables for a measured command."""
    # Code of the working directory is not part of the comparison, and an installed Lamella has byte code.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "LAMELLA_LOCAL": "", **settings}


def lamella(*arguments: str | Path, settings: Mapping[str, str]) -> Took:
    """Run a verb with --json."""
    head, tail = list(arguments), []
    if "--" in head:
        at = head.index("--")
        head, tail = head[:at], head[at:]
    quiet = [] if tail else ["--json"]
    return run([sys.executable, "-m", "lamella.cli", *head, "--quiet", *quiet, *tail], settings=settings)
