"""The result of a comparison, as values and as a JSON document: every run that was measured, and nothing derived.

Sizes are bytes, durations seconds, times UTC. docs/reference/schemas/compare.json describes the document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lamella.comparison.decoding import decode
from lamella.comparison.errors import ComparisonError

VERSION = 1
"""Rises when a field changes its meaning or goes, and not for a new field."""


@dataclass(frozen=True, slots=True)
class ComparedPrefix:
    """The environment that every workflow carried."""

    prefix: str
    kind: str
    """The installer's family, such as `venv` or `conda`."""
    python: str
    packages: int
    files: int
    bytes: int
    byte_code: bool
    """Whether its packages have byte code on disk."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine of all runs."""

    system: str
    kernel: str
    processors: int
    processor: str
    memory: int
    file_system: str
    load: tuple[float, ...]
    """The average of one minute before the first run and after the last one."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network between registry and nodes."""

    kind: Literal["loopback", "namespaces"]
    delay_ms: float
    megabits: float | None
    """Of each link, per second; None for an unlimited one."""

    @property
    def line(self) -> str:
        """Speed and delay of each link, in words: `100 Mbit/s and 20 ms each way`."""
        speed = "unlimited speed" if self.megabits is None else f"{self.megabits:g} Mbit/s"
        return f"{speed} and {self.delay_ms:g} ms each way" if self.delay_ms else f"{speed}, no delay"


@dataclass(frozen=True, slots=True)
class RegistryProgram:
    """The registry of all runs."""

    program: str
    given: bool
    """Whether the user named it; False for one that the comparison started."""


@dataclass(frozen=True, slots=True)
class Workflow:
    """A way from an environment to nodes."""

    name: str
    title: str
    steps: str
    """A few words: `build, push, pull`."""
    programs: Mapping[str, str]
    """Versions of its programs, by name."""
    byte_code: bool
    """Whether nodes get byte code with it."""
    compression: str | None
    source: str
    """Address of the documentation that it follows."""
    available: bool
    missing: str | None
    """Why it was left out, and how to get its programs; None for one that ran."""


@dataclass(frozen=True, slots=True)
class Story:
    """A change that reaches a node."""

    name: str
    title: str
    description: str


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a run."""

    name: str
    """A verb: `build`, `push`, `pull`, `mount`, `unpack`, `install`, `import`."""
    seconds: float
    cpu_seconds: float
    peak_memory: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a story through a workflow, from the change to the import on the node."""

    workflow: str
    story: str
    round: int
    caches: Literal["cold", "warm"]
    """Page cache of the system before the run."""
    load: float
    """The machine's average of one minute before the run."""
    steps: tuple[Step, ...]
    seconds: float
    cpu_seconds: float
    peak_memory: int
    uploaded: int
    """Bytes on the wire to the registry."""
    downloaded: int
    """Bytes on the wire from the registry or an index."""
    registry_bytes: int
    """Growth of the registry's storage."""
    node_bytes: int
    """Growth of the node's disk."""
    failed: str | None
    """One sentence; None for a run that succeeded."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that was measured, and on what."""

    lamella: str
    """Version."""
    command: str
    """The command line that repeats it, without credentials."""
    begun: str
    """UTC, as in RFC 3339."""
    seconds: float
    complete: bool
    """False if it was interrupted: the runs are those that had ended."""
    environment: ComparedPrefix
    machine: Machine
    network: Network
    registry: RegistryProgram
    rounds: int
    workflows: tuple[Workflow, ...]
    stories: tuple[Story, ...]
    runs: tuple[Run, ...]


def document(comparison: Comparison) -> dict[str, Any]:
    """Return `comparison` as the JSON document of `lamella compare --json`."""
    return {"version": VERSION, **asdict(comparison)}


def read(value: object) -> Comparison:
    """Return the comparison that a JSON document holds. Fields that this version does not have are ignored.

    Raises:
        ComparisonError: another version, or a missing or invalid field.
    """
    version = value.get("version") if isinstance(value, Mapping) else None
    if version != VERSION:
        raise ComparisonError(
            f"result.json: not a comparison of version {VERSION}; write one with `lamella compare --json`"
        )
    found = decode(Comparison, value)
    workflows, stories = {each.name for each in found.workflows}, {each.name for each in found.stories}
    if len(workflows) < len(found.workflows) or len(stories) < len(found.stories):
        raise ComparisonError("result.json: two workflows or two stories have the same name")
    for number, run in enumerate(found.runs):
        if run.workflow not in workflows or run.story not in stories:
            raise ComparisonError(
                f"result.json: runs[{number}]: {run.workflow!r}, {run.story!r}: not among its workflows and stories"
            )
    return found
