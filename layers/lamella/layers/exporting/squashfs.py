"""A squashfs image, by squashfs-tools: from a stream, or with versions before 4.5 from a folder."""

from __future__ import annotations

import errno
import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import ExportError
from lamella.layers.exporting.archive import write_tar
from lamella.layers.exporting.folder import write_folder
from lamella.layers.tar.headers import MTIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamella.layers.exporting.members import Member
    from lamella.layers.exporting.target import Target


def write_squashfs(
    path: str, target: Target, members: Iterable[Member], work: str, done: Callable[[int], object]
) -> None:
    """Write the image at `path`. `work` is a folder for files meanwhile."""
    command = ["mksquashfs", "-", path, "-noappend", "-all-root", "-no-progress", "-quiet", "-no-xattrs"]
    command += ["-mkfs-time", str(MTIME), "-all-time", str(MTIME), "-processors", str(target.threads or os.cpu_count())]
    command += _compression(target.level)
    # Not on a disk: one that is full would lose the reason.
    with os.fdopen(os.memfd_create("mksquashfs"), "w+b") as output:
        if "\n-tar\t" in _help():
            _stream([*command, "-tar", "-root-mode", "0755"], target, members, done, output.fileno())
            return
        tree = command[1] = f"{work}/tree"
        write_folder(tree, members, ("hardlinks", "reflinks", "copies"), done)
        os.chmod(tree, 0o755)
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        _wait(process, output.fileno())


def _compression(level: int) -> list[str]:
    # Its own default, gzip, takes ten times as long; some distributions build it without zstd.
    if "\n\t\t\t\tzstd" not in _help():
        return []
    return ["-comp", "zstd", "-Xcompression-level", str(level)]


def _help() -> str:
    done = subprocess.run(["mksquashfs", "-help"], check=False, capture_output=True, text=True)
    return done.stdout + done.stderr


def _stream(
    command: list[str], target: Target, members: Iterable[Member], done: Callable[[int], object], output: int
) -> None:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output)
    stream = process.stdin
    if stream is None:
        raise AssertionError("a pipe was requested")
    try:
        # If it ends early, for example on a full disk, its own words say why.
        with suppress(BrokenPipeError), stream:
            write_tar(stream, members, target.root, done, folders=True)
    except BaseException:
        process.kill()
        process.wait()
        raise
    _wait(process, output)


def _wait(process: subprocess.Popen[bytes], output: int) -> None:
    try:
        code = process.wait()
    except BaseException:
        process.kill()
        process.wait()
        raise
    if code:
        text = os.pread(output, 1 << 16, 0).decode("utf-8", "replace")
        if os.strerror(errno.ENOSPC) in text:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        lines = text.strip().splitlines()
        # After its own message, it says that it cleans up.
        errors = [line for line in lines if "FATAL" in line or "rror" in line or "Could" in line] or lines
        raise ExportError(f"mksquashfs: {errors[-1] if errors else f'exit code {code}'}")
