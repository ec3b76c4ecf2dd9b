"""An ordinary copy of an environment, for machines without Lamella: a folder, an archive, a squashfs image."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers import activation, archive, exported, lowers, tree
from lamella.layers.errors import ExportError, MountError
from lamella.layers.progress import Silent
from lamella.layers.relocate import CannotRelocate, move
from lamella.layers.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.layers.progress import Progress

Format = Literal["dir", "tar.gz", "tar.zst", "zip", "squashfs"]
FORMATS: tuple[Format, ...] = ("dir", "tar.gz", "tar.zst", "zip", "squashfs")

_SILENT = Silent()
_ENDINGS: dict[str, Format] = {
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".zip": "zip",
    ".squashfs": "squashfs",
    ".sqfs": "squashfs",
}
_WRITERS = {"tar.gz": archive.write_gzip, "tar.zst": archive.write_zstd, "zip": archive.write_zip}


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    reference: str
    """Pinned by digest."""
    path: str
    """Absolute."""
    format: Format
    prefix: str
    """What its files name: a folder's own path; an archive's is the image prefix until it is unpacked and activated."""
    files: int
    bytes: int
    """Of the files, not of the archive."""


def format_of(path: str) -> Format:
    """What `path`'s name asks for; `dir` where it has none of the others' endings."""
    return next((found for ending, found in _ENDINGS.items() if path.endswith(ending)), "dir")


def export(
    reference: str,
    path: str,
    *,
    format: Format | None = None,  # noqa: A002 # the flag's name
    link: bool = False,
    prefix: str = "",
    store: Store | None = None,
    insecure: bool = False,
    progress: Progress = _SILENT,
) -> Exported:
    """Pulls what is missing of `reference` and writes the environment to `path`, which must not exist or be empty.

    `format`: by default what the name asks for. `link`: a folder's files are hardlinks into the store, and nobody may
    write to them. `prefix`: the path that the files are to name; by default a folder's is its own, and an archive's is
    found when it is unpacked, by `bin/activate` or `bin/lamella-unpack`. A squashfs image can't be changed any more:
    mount it at `prefix`, by default the image prefix. Raises `ExportError`, and what `pull` raises; then nothing is left.
    """
    from lamella.layers import pull

    store = store or Store()
    path = os.path.abspath(path)
    wanted = format or format_of(path)
    _check_free(path, folder=wanted == "dir")
    if wanted == "squashfs" and not shutil.which("mksquashfs"):
        raise ExportError("no mksquashfs on PATH: install squashfs-tools, or export another format")
    with pull.leased(reference, store=store, insecure=insecure, progress=progress) as pulled, ExitStack() as undo:
        environment = pulled.environment
        at = prefix or (os.path.realpath(path) if wanted == "dir" else environment.prefix)
        # Beside its place, and renamed: whoever sees it there sees all of it.
        partial = f"{path}.partial-{os.urandom(4).hex()}"
        undo.callback(_remove, partial)
        try:
            # What is laid out as a tree is moved there; what is written as it is comes with its files rewritten.
            inside = at if wanted in _WRITERS else environment.prefix
            folders = lowers.for_prefix(store, environment, inside)
            more = _more(inside, folders)
            listed = archive.entries(folders, more)
            total = sum(_size(entry) for entry in listed)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if wanted in _WRITERS:
                _archive(partial, wanted, listed, total, progress)
            else:
                tree_path = partial if wanted == "dir" else f"{partial}.tree"
                undo.callback(_remove, tree_path)
                with _counted(progress, len(listed)) as done:
                    _make_tree(tree_path, folders, more, at, link=link or wanted == "squashfs", done=done)
                if wanted == "squashfs":
                    _squash(tree_path, partial)
            os.rename(partial, path)
        except MountError as error:
            raise ExportError(str(error)) from error
        except OSError as error:
            raise ExportError(f"{path} can't be written: {error.strerror or error}") from error
    return Exported(pulled.reference, path, wanted, at, len(listed), total)


def _archive(path: str, wanted: Format, listed: Sequence[archive.Entry], total: int, progress: Progress) -> None:
    progress.begin("export", total, "B")
    try:
        with open(path, "xb") as file:
            _WRITERS[wanted](file, listed, lambda amount: progress.advance("export", amount))
    finally:
        progress.end("export")


@contextmanager
def _counted(progress: Progress, files: int) -> Iterator[Callable[[int], None]]:
    progress.begin("export", files, "files")
    try:
        yield lambda count: progress.advance("export", count)
    finally:
        progress.end("export")


def _make_tree(
    path: str,
    folders: Sequence[str],
    more: dict[str, tuple[bytes, int]],
    prefix: str,
    *,
    link: bool,
    done: Callable[[int], None],
) -> None:
    os.mkdir(path, 0o755)
    for how in ("hardlinks", "reflinks", "copies") if link else ("reflinks", "copies"):
        try:
            tree.lay(folders, path, how, done)
            break
        except MountError:
            if how == "copies":
                raise
    for name, (content, mode) in more.items():
        there = f"{path}/{name}"
        os.makedirs(os.path.dirname(there), exist_ok=True)
        if os.path.lexists(there):
            os.unlink(there)  # never written through: it may be the store's own file
        with open(there, "xb") as file:
            file.write(content)
        os.chmod(there, mode)
    try:
        move(path, prefix)
    except CannotRelocate as error:
        raise ExportError(f"the environment can't be moved to {prefix}: {error}") from error


def _squash(folder: str, path: str) -> None:
    command = ["mksquashfs", folder, path, "-all-root", "-noappend", "-no-progress", "-quiet", "-no-xattrs"]
    command += ["-mkfs-time", str(archive.TIME), "-all-time", str(archive.TIME)]
    # Its own default, gzip, takes ten times as long; some distributions build it without zstd.
    for compression in (["-comp", "zstd", "-Xcompression-level", "3"], []):
        made = subprocess.run([*command, *compression], check=False, capture_output=True, text=True)
        if not made.returncode:
            return
        _remove(path)
    lines = (made.stderr or made.stdout).strip().splitlines()
    raise ExportError(f"mksquashfs failed: {lines[-1] if lines else f'exit code {made.returncode}'}")


def _more(prefix: str, folders: Sequence[str]) -> dict[str, tuple[bytes, int]]:
    conda = any(os.path.isdir(f"{folder}/conda-meta") for folder in folders)
    variables: dict[str, str] = {}
    for folder in folders:
        variables |= activation.conda_variables(folder)
    return exported.files(prefix, variables, conda=conda)


def _check_free(path: str, *, folder: bool) -> None:
    if not os.path.lexists(path) or (folder and os.path.isdir(path) and not os.listdir(path)):
        return
    raise ExportError(f"{path} is there already: remove it, or choose another name")


def _size(entry: archive.Entry) -> int:
    return os.lstat(entry.source).st_size if entry.source else len(entry.content)


def _remove(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)
