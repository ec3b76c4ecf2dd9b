"""How long work tells what it does, without knowing who listens."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Hears of tasks by name. Calls come from several threads; an implementation locks what it must."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """`task` starts, of `total` units ("B", "layers", "files"); None where the total is not known."""

    def advance(self, task: str, amount: int) -> None:
        """`amount` more units of `task` are done."""

    def end(self, task: str) -> None:
        """`task` is done."""


class Silent:
    """Hears and says nothing."""

    def begin(self, task: str, total: int | None, unit: str) -> None:
        """Nothing."""

    def advance(self, task: str, amount: int) -> None:
        """Nothing."""

    def end(self, task: str) -> None:
        """Nothing."""
