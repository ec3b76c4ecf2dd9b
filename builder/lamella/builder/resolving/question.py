"""What a resolver is asked for a target, and what it answers; uv's and pip's are alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.builder.resolving import target_tags

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lamella.builder.indexes.model import Indexes
    from lamella.builder.resolving.model import Target


class Unsolvable(BuilderError):
    """Requirements that no set of wheels meets; the message is clauses about packages."""

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names
        """Packages without a file that fits; empty if that is not the reason."""


class ResolverMissing(BuilderError):
    """A resolver that is not installed, or too old."""


@dataclass(frozen=True, slots=True)
class Question:
    """Requirements, and how they may be met. Only wheels count."""

    requirements: tuple[str, ...]
    """PEP 508, with markers of the target."""
    target: Target
    indexes: Indexes
    preferred: Mapping[str, str]
    """Versions to keep if the requirements allow them, by normalised name."""
    absent: frozenset[str] = frozenset()
    """Names that are taken for met: they come in another way."""
    dependencies: bool = True
    """Whether to add what the packages require."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that fits the target."""

    name: str
    """Normalised."""
    version: str
    filename: str
    url: str
    """Without credentials."""
    sha256: str = ""
    size: int = 0
    index: str = ""
    """URL of its index, without credentials; empty if unknown."""
    yanked: bool = False
    query: str = field(default="", repr=False, compare=False)
    """Query of the URL: for the request alone."""


def best_of(wheels: Iterable[Wheel], target: Target) -> Wheel | None:
    """Return the wheel of one version that an installer on `target` chooses; None if none fits."""
    by_name = {wheel.filename: wheel for wheel in wheels}
    chosen = target_tags.best(by_name, target)
    return by_name[chosen] if chosen else None
