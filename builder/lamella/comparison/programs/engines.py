"""The container engine of the workflows with images: Docker, or podman on a machine without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from lamella.comparison.programs import docker, podman

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from lamella.comparison.programs.commands import Commands


class Engine(Protocol):
    """An engine of one machine, as its command line."""

    def __call__(self, *arguments: str, cwd: str | None = None, stdin: str | None = None) -> str:
        """Run a verb, and return its standard output."""


class EngineProgram(Protocol):
    """A program that gives engines."""

    TITLE: str
    PROGRESS: tuple[str, ...]

    def missing(self) -> str | None:
        """Return what this machine lacks to run it, and how to get it."""

    def versions(self) -> dict[str, str]:
        """Return the versions of its programs."""

    def engine(
        self, commands: Commands, folder: str, place: str = "", compression: str = "gzip"
    ) -> AbstractContextManager[Engine]:
        """Give an engine with its files in `folder`, which belongs to the machine with the folder `place`.

        `compression`: of the layers that it pushes, as far as it has a choice.
        """


def engine_program() -> EngineProgram:
    """Return podman if Docker can't run here and podman can, else Docker."""
    return podman if docker.missing() and not podman.missing() else docker


def podman_program() -> EngineProgram:
    """Return podman, also beside Docker."""
    return podman
