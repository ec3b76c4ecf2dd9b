"""Write members to a target: one pass over them, whatever the form."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import partial
from typing import IO, TYPE_CHECKING

from lamella.layers.errors import ExportError
from lamella.layers.exporting.archive import write_tar, write_zip
from lamella.layers.exporting.compress import compressed, threads_for
from lamella.layers.exporting.folder import write_folder
from lamella.layers.exporting.output import put, work_folder
from lamella.layers.exporting.squashfs import write_squashfs
from lamella.layers.exporting.target import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lamella.layers.exporting.members import Member
    from lamella.layers.exporting.target import Target
    from lamella.layers.mounting.link_tree import How
    from lamella.layers.progress.display import Progress


def write(
    target: Target,
    members: Iterable[Member],
    total: int,
    progress: Progress,
    *,
    ways: Sequence[How] = (),
    finish: Callable[[str], object] = lambda _: None,
) -> None:
    """Write `members`, of `total` bytes, to `target`.

    `ways`: how a folder gets files that are on this disk; `finish` is called with a whole folder before it
    is moved to its place.

    Raises `ExportError`; then nothing is left at the target's path, and anything there before stays.
    """
    with _counted(progress, total) as done:
        if target.path == STDOUT:
            with _standard_output() as file:
                _archive(file, target, members, done)
            return
        with work_folder(target) as work:
            made = f"{work}/made"
            if target.is_folder:
                write_folder(made, members, ways, done)
                finish(made)
            elif target.format == "squashfs":
                write_squashfs(made, target, members, work, done)
            else:
                with open(made, "xb") as file:
                    _archive(file, target, members, done)
            put(made, target.path)


def _archive(file: IO[bytes], target: Target, members: Iterable[Member], done: Callable[[int], object]) -> None:
    if target.format == "zip":
        write_zip(file, _nameable(members), target.root, target.level, done)
        return
    threads = threads_for(target.compression, target.level, target.threads, os.cpu_count() or 1)
    with compressed(file, target.compression, target.level, threads) as out:
        write_tar(out, members, target.root, done)


def _nameable(members: Iterable[Member]) -> Iterator[Member]:
    for member in members:
        try:
            member.path.encode()
        except UnicodeEncodeError:
            name = os.fsencode(member.path).decode("utf-8", "replace")
            raise ExportError(f"{name}: a name that is not UTF-8, which zip cannot hold; use a tar format") from None
        yield member


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    if os.isatty(1):
        raise ExportError("standard output is a terminal; pipe it to another program, or name a file")
    try:
        with os.fdopen(os.dup(1), "wb") as file:
            yield file
    except BrokenPipeError:
        raise  # `… - | head`: no failure to report
    except OSError as error:
        raise ExportError(f"standard output can't be written: {error.strerror or error}") from error


@contextmanager
def _counted(progress: Progress, total: int) -> Iterator[Callable[[int], object]]:
    progress.begin("export", total, "B")
    try:
        yield partial(progress.advance, "export")
    finally:
        progress.end("export")
