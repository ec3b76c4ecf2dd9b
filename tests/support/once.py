"""What a whole run of tests makes once, however many workers it has."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

Lamella = Callable[..., "subprocess.CompletedProcess[str]"]
"""Runs one command line of Lamella; keyword arguments are environment variables."""


@contextmanager
def once(folder: Path) -> Iterator[bool]:
    """Whether this process is the one of the run's workers that has to make `folder`; the others wait for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_suffix(".done")
        yield not done.exists()
        done.touch()
