"""The field `lamella` of a runtime environment: the environment, and the command line that starts workers in it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from lamella.layers import InvalidReference, LayersError, MountError, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable

FIELD = "lamella"
"""The field that the plugin reads."""


@dataclass(frozen=True, slots=True)
class Misspelt:
    """The value of the field `lamella` if it stands under another name."""

    name: str


def misspelt(fields: Iterable[str]) -> Misspelt | None:
    """Find the name among `fields`, all of them unknown to Ray, that is meant to be `lamella`."""
    names = {name.lower(): name for name in fields}
    close = get_close_matches(FIELD, names, n=1, cutoff=0.75)
    return Misspelt(names[close[0]]) if close else None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The value of the field `lamella`."""

    reference: str
    mount: str
    is_pinned: bool

    @property
    def key(self) -> str:
        """Name it in Ray's cache."""
        return f"{self.reference} at {self.mount}" if self.mount else self.reference

    @classmethod
    def of(cls, value: object) -> Wanted | None:
        """Parse what a job gives; None without the field. Raises `LayersError`."""
        if value is None:
            return None
        if isinstance(value, Misspelt):
            raise InvalidReference(f"runtime_env field {value.name!r}: unknown; did you mean {FIELD}?")
        fields = {"reference": value} if isinstance(value, str) else value
        if (
            not isinstance(fields, dict)
            or not {"reference"} <= fields.keys() <= {"reference", "mount"}
            or not all(isinstance(each, str) for each in fields.values())
        ):
            # Without the values: Ray logs the sentence, and one can be a password.
            given = (
                f"a dictionary with {', '.join(map(repr, fields))}"
                if isinstance(fields, dict)
                else type(value).__name__
            )
            raise InvalidReference(
                f"runtime_env field {FIELD}: {given}: neither a reference nor a dictionary with the keys reference and, "
                "if wanted, mount"
            )
        parsed = Reference.parse(fields["reference"])
        folder = fields.get("mount", "")
        if folder and not parsed.digest:
            raise InvalidReference(
                f"runtime_env field {FIELD}: cannot mount {parsed}, whose tag can move; name its digest, as "
                "lamella.integrations.ray.runtime_env returns it"
            )
        if folder and not os.path.isabs(folder):
            raise MountError(f"runtime_env field {FIELD}: mount {folder!r}: not an absolute path")
        return cls(fields["reference"], folder, parsed.digest is not None)


def run_command(program: str, reference: str) -> str:
    """A command line for Ray, which has bash run it."""
    return shlex.join([program, "run", reference, "--", "python"])


def program_here() -> str:
    """The command `lamella` beside this interpreter, or on PATH."""
    beside = os.path.dirname(sys.executable)
    found = shutil.which("lamella", path=beside) or shutil.which("lamella")
    if not found:
        raise LayersError(
            f"lamella: no such command in {beside} or on PATH; install Lamella with its command on this node"
        )
    return found
