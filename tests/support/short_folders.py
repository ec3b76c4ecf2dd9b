"""Folders with short paths, wherever pytest keeps its own: a socket's path has room for 107 bytes, podman's for 50."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def short_folder() -> Iterator[Path]:
    """Make an empty folder in /tmp; it is removed when the block ends."""
    place = "/tmp" if os.access("/tmp", os.W_OK) else None
    # What a container leaves busy for a moment fails no test.
    with tempfile.TemporaryDirectory(prefix="lamella-", dir=place, ignore_cleanup_errors=True) as folder:
        yield Path(folder)
