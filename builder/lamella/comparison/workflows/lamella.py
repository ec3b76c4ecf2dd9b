"""Lamella itself: push on the laptop, pull and run on the node."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lamella.comparison.measuring.meter import Measure
    from lamella.comparison.options import CompareOptions
    from lamella.comparison.stories import Check
    from lamella.comparison.subject.subject import Original
    from lamella.comparison.workflows.workflow import Place, Session

COMMAND = (sys.executable, "-m", "lamella.cli")


@dataclass(frozen=True, slots=True)
class Lamella:
    """The workflow."""

    name: str = "lamella"
    title: str = "Lamella"
    steps: str = "push, pull, import"
    byte_code: bool | None = True
    compression: str | None = "zstd"
    source: str = "docs/how-to/push-and-pull.md"
    uses_base_image: bool = False

    def missing(self, _original: Original, _options: CompareOptions) -> str | None:
        """It is here."""
        return None

    def programs(self) -> Mapping[str, str]:
        """Return its version."""
        return {"lamella": __version__}

    @contextlib.contextmanager
    def opened(self, session: Session) -> Iterator[OpenedLamella]:
        """Start nothing: it has no daemon."""
        yield OpenedLamella(session)


@dataclass(frozen=True, slots=True)
class OpenedLamella:
    """The workflow in a session."""

    session: Session

    def publish(self, tag: str, meter: Measure) -> None:
        """Push."""
        session = self.session
        cache = os.path.join(session.laptop.folder, "cache")
        command = [*COMMAND, "push", "--quiet", "--cache", cache, "--local", session.subject.code]
        with meter.step("push"):
            self._run(session.laptop, [*command, self._reference(session.laptop, tag), session.subject.prefix])

    @contextlib.contextmanager
    def node(self, _place: Place) -> Iterator[None]:
        """Start nothing."""
        yield

    def deliver(self, place: Place, tag: str, check: Check, meter: Measure) -> None:
        """Pull, and import in the mounted environment."""
        store = ["--quiet", "--store", os.path.join(place.folder, "store"), self._reference(place, tag)]
        with meter.step("pull"):
            self._run(place, [*COMMAND, "pull", *store])
        with meter.step("import"):
            self._run(place, [*COMMAND, "run", *store, "--", "python", "-c", check.program()])

    def _reference(self, place: Place, tag: str) -> str:
        return f"{place.registry.host}/{self.session.repository}lamella:{tag}"

    def _run(self, place: Place, command: list[str]) -> None:
        # The user's settings of Lamella would be settings of one side alone.
        settings = {name: os.path.join(place.folder, "home", name) for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        self.session.commands.run(command, env=settings)
