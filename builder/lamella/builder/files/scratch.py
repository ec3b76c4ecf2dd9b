"""A folder for temporary files, on a disk that can be full like any other."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from typing import TYPE_CHECKING

from lamella.builder.errors import CannotBuild

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def scratch_folder() -> Iterator[str]:
    """An empty folder, removed at the end. Raises `CannotBuild` if the block, or this itself, can't write there."""
    try:
        with tempfile.TemporaryDirectory(prefix="lamella-", ignore_cleanup_errors=True) as folder:
            yield folder
    except OSError as error:
        raise cannot_write_scratch(error) from None


def cannot_write_scratch(error: OSError) -> CannotBuild:
    """Return the error for a temporary file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CannotBuild(f"{_folder()}: no space left for temporary files; free some, or set TMPDIR to another disk")
    return CannotBuild(
        f"{_folder()}: temporary files cannot be written: {error.strerror}; set TMPDIR to a folder of your own"
    )


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:
        return "TMPDIR"  # none of the usual folders can be written
