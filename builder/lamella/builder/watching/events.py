"""Events of a watch, and their sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.text import counted

if TYPE_CHECKING:
    from lamella.builder.environment import Environment
    from lamella.builder.pushing.push import Pushed
    from lamella.layers.oci.reference import Reference


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One line of a watch."""

    kind: Literal["watching", "polling", "pushed", "waiting", "failed"]
    message: str
    """One sentence without the time: the folders, the push, or the failure with the next step."""
    reference: str = ""
    """Reference with its digest, of a push."""
    packages: tuple[str, ...] = ()
    """Name and version of each package whose layer was built or uploaded."""
    moved: int = 0
    """Bytes uploaded."""
    seconds: float = 0.0
    """From the last change to the tag."""


def new_errors(environment: Environment) -> tuple[str, ...]:
    """Return the messages of the findings that are errors."""
    return tuple(each.message for each in environment.findings if each.severity == "error")


def of_push(pushed: Pushed, seconds: float, errors: tuple[str, ...]) -> WatchEvent:
    """Return the event of a push; `errors`: findings that it was pushed with."""
    layers = [layer for layer in pushed.plan.layers if layer.action != "reuse" and len(layer.wanted.packages) == 1]
    packages = tuple(layer.wanted.packages[0] for layer in layers)
    message = f"pushed {pushed.reference}: {_names(packages)}"
    if errors:
        message += f"; {counted(len(errors), 'error')}: {errors[0]}"
    return WatchEvent("pushed", message, pushed.reference, packages, pushed.moved, round(seconds, 3))


def _names(packages: tuple[str, ...]) -> str:
    if not packages:
        return "no package changed"
    more = f" and {len(packages) - 3} more" if packages[3:] else ""
    return f"{', '.join(packages[:3])}{more}"


def watched(environment: Environment, target: Reference) -> str:
    """Return the sentence for the folders that are watched."""
    local = sorted(package.name for package in environment.packages if package.origin == "local")
    code = f", and local code: {', '.join(local)}" if local else ""
    return f"watching {environment.prefix} for {target}{code}"


def first_of(paths: set[str]) -> str:
    """Return one path for a sentence, always the same one."""
    return min(paths, default="a file")


def sentence_of(error: BaseException) -> str:
    """Return an error as a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)
