"""What a comparison compares, and how often."""

from __future__ import annotations

from dataclasses import dataclass

TEN_NODES = 10


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """Options of `compare`. Empty tuples stand for all workflows or stories."""

    workflows: tuple[str, ...] = ()
    stories: tuple[str, ...] = ()
    rounds: int = 1
    nodes: int = TEN_NODES
    """Nodes of the story `ten-nodes`."""
    registry: str | None = None
    """HOST[:PORT]/REPOSITORY to use; None to start one."""
    delay_ms: float = 0.0
    """Of each line, each way."""
    megabits: float | None = None
    """Of each line, each way, per second; None for an unlimited one."""
    base_image: str | None = None
    """Image that Docker's workflows start from; None to make one."""
    scratch: str | None = None
    """Folder for everything that the comparison makes; None for one in the system's temporary folder."""
    command: str = "lamella compare"
    """The command line, as it is kept in the result."""
