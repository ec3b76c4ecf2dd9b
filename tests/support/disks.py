"""File systems of a test's own: small ones, which run full, and another one than the temporary folder's."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from support.engines import missing, need, need_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def disk(where: Path, options: str) -> Iterator[None]:
    """A file system of its own at `where`."""
    need_root()
    where.mkdir(exist_ok=True)
    subprocess.run([need("mount"), "-t", "tmpfs", "-o", options, "tmpfs", where], check=True)
    try:
        yield
    finally:
        subprocess.run([need("umount"), where], check=True)


def enlarge(where: Path) -> None:
    """Give a `disk` room for everything."""
    subprocess.run([need("mount"), "-o", "remount,size=64m,nr_inodes=4000", where], check=True)


@contextmanager
def another_file_system(than: Path) -> Iterator[Path]:
    """A new folder in memory, on another file system than `than`."""
    folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
    try:
        if folder.stat().st_dev == than.stat().st_dev:
            missing("/dev/shm and the temporary folder are one file system: set TMPDIR")
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def ext4(where: Path, *, inodes: int) -> Iterator[None]:
    """A small file system whose folders take few names a block."""
    need_root()
    where.mkdir()
    image = where.with_suffix(".img")
    subprocess.run(["truncate", "--size=16M", image], check=True)
    subprocess.run([need("mkfs.ext4"), "-q", "-m", "0", "-b", "1024", "-N", str(inodes), image], check=True)
    if subprocess.run([need("mount"), "-o", "loop", image, where], check=False, capture_output=True).returncode:
        missing("no ext4 can be mounted from a file here: load the kernel's ext4 and loop modules")
    try:
        yield
    finally:
        subprocess.run([need("umount"), where], check=True)


def fill(folder: Path, *, inodes: bool) -> None:
    """Take all the room of the disk, or its last inode."""
    with suppress(OSError):
        if inodes:
            for number in range(4000):
                (folder / f"file-{number}").touch()
        else:
            with (folder / "file").open("wb", buffering=0) as file:
                while file.write(bytes(1 << 10)):
                    pass
