"""The interface of a workflow, and what it gets to work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.programs.commands import Commands
    from lamella.comparison.programs.lines import Wire
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original, Subject


@dataclass(frozen=True, slots=True)
class Place:
    """A machine of a session: the laptop, or a node. Everything that it keeps is in its folder."""

    name: str
    folder: str
    registry: Wire
    index: Wire | None
    """None for an environment without wheels."""


@dataclass(frozen=True, slots=True)
class Session:
    """One round of one workflow: a fresh registry, a fresh laptop and a fresh copy of the environment."""

    commands: Commands
    subject: Subject
    laptop: Place
    repository: str
    """Path before the names of its repositories, with a slash at its end, or empty."""


class Workflow(Protocol):
    """A way from an environment to nodes."""

    @property
    def name(self) -> str:
        """Its word on the command line."""

    @property
    def title(self) -> str:
        """Its name for readers."""

    @property
    def steps(self) -> str:
        """A few words: `build, push, pull`."""

    @property
    def byte_code(self) -> bool | None:
        """Whether nodes get byte code; None if that is as on the laptop."""

    @property
    def compression(self) -> str | None:
        """Compression on the wire."""

    @property
    def source(self) -> str:
        """Address of the documentation that it follows."""

    @property
    def uses_base_image(self) -> bool:
        """Whether the registry needs the base image."""

    def missing(self, original: Original, options: CompareOptions) -> str | None:
        """Return why it can't run here, and how to get what it lacks, or None."""

    def programs(self) -> Mapping[str, str]:
        """Return the versions of its programs."""

    def opened(self, session: Session) -> AbstractContextManager[Opened]:
        """Start what it needs on the laptop, with empty caches. Not measured."""


class Opened(Protocol):
    """A workflow in a session."""

    def publish(self, tag: str, meter: Measure) -> None:
        """Bring the session's environment and code, as they are now, to where nodes get them, as `tag`."""

    def node(self, place: Place) -> AbstractContextManager[object]:
        """Start what it needs on a node, with empty caches but for Docker's base image. Not measured."""

    def deliver(self, place: Place, tag: str, check: Check, meter: Measure) -> None:
        """Bring the environment published as `tag` to a node, and import it there."""
