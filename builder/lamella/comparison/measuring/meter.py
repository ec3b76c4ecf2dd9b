"""What the steps of a run took."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Protocol

from lamella.comparison.measuring.processes import PeakMemory, processor_seconds, reap_orphans
from lamella.comparison.result import Step

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from lamella.comparison.programs.commands import Commands


class Measure(Protocol):
    """Receives the steps of a run."""

    def step(self, name: str, *places: str) -> AbstractContextManager[None]:
        """Enclose a step of the machines with these folders."""


class Unmeasured:
    """Measures nothing: its steps are parts of one that is measured as a whole."""

    def step(self, _name: str, *_places: str) -> AbstractContextManager[None]:
        """Enclose a step."""
        return contextlib.nullcontext()


class Meter:
    """Measures steps, one after another. The servers of the comparison (registry, index, lines) count in none."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self.steps: list[Step] = []

    @contextlib.contextmanager
    def step(self, name: str, *places: str) -> Iterator[None]:
        """Measure the block as a step of the machines with these folders. A block that fails is not kept."""
        reap_orphans(self._commands.children)
        servers = self._commands.elsewhere(places)
        before = processor_seconds(servers)
        peak = PeakMemory(servers)
        began = time.monotonic()
        try:
            yield
            took = time.monotonic() - began
        finally:
            memory = peak.close()
        reap_orphans(self._commands.children)
        cpu = max(0.0, processor_seconds(servers) - before)
        self.steps.append(Step(name, round(took, 4), round(cpu, 3), memory))
