"""Run a resolver, uv or pip, as a process without input."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from lamella.builder.indexes.client import IndexUnusable
from lamella.builder.resolving.question import ResolverMissing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOM = "lamella.builder.resolving"
"""Logger of what resolvers write, for --verbose."""
_SECONDS = 600


def run_resolver(
    name: str, command: Sequence[str], folder: str, environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder`, and return its output, whatever its exit code. `name` is the tool in messages.

    Its output may hold logins: `Indexes.hidden` masks them. Raises `IndexUnusable` after 10 minutes, and
    `ResolverMissing` if it cannot run.
    """
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise IndexUnusable(f"{name} found no answer in {_SECONDS // 60} minutes; try again later") from None
    except OSError as error:
        raise ResolverMissing(f"{command[0]}: cannot run: {error.strerror}; install uv") from None
