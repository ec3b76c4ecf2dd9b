"""An ordinary copy of an environment, for machines without Lamella: a folder, an archive, a squashfs image."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lamella.layers.errors import ExportError, MountError
from lamella.layers.exporting import activate_script, archive
from lamella.layers.mounting import link_tree, lowerdirs, sources
from lamella.layers.mounting.relocate import CannotRelocate, check_prefix, move
from lamella.layers.progress import Silent
from lamella.layers.running import activation
from lamella.layers.store.incoming import remove_left
from lamella.layers.store.store import Store
from lamella.layers.text import counted, size
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lamella.layers.oci.documents import Platform
    from lamella.layers.progress import Progress

Format = Literal["dir", "tar.gz", "tar.zst", "zip", "squashfs"]
FORMATS: tuple[Format, ...] = ("dir", "tar.gz", "tar.zst", "zip", "squashfs")

_SILENT = Silent()
_ENDINGS: dict[str, Format] = {
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
    ".tar.zst": "tar.zst",
    ".tzst": "tar.zst",
    ".zip": "zip",
    ".squashfs": "squashfs",
    ".sqfs": "squashfs",
}
_OTHER_ARCHIVE = re.compile(r"\.(?:tar(?:\.[a-z0-9]+)?|t[bx]z2?|tlz|gz|bz2|xz|zst|lz4|7z|rar|cpio|iso|img|sfs)$")
_LINKS: tuple[link_tree.How, ...] = ("hardlinks",)
_COPIES: tuple[link_tree.How, ...] = ("reflinks", "copies")
_EITHER = _LINKS + _COPIES
_WORK = ".lamella-export-"
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

    def __repr__(self) -> str:
        return f"<Exported {self.reference} to {self.path} as {self.format}: {counted(self.files, 'file')}, {size(self.bytes)}>"


def format_of(path: str) -> Format:
    """Format by the ending of `path`; `dir` without an archive's. Raises `ExportError` for an unknown archive's."""
    name = os.path.basename(path).lower()
    found = next((found for ending, found in _ENDINGS.items() if name.endswith(ending)), None)
    other = _OTHER_ARCHIVE.search(name)
    if not found and other:
        raise ExportError(
            f"{path}: {other[0]} archives are not supported; use .tar.gz, .tar.zst, .zip or .squashfs, "
            "or --format dir for a folder of that name"
        )
    return found or "dir"


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write."""

    format: Format | None = None
    """By default what the path's ending says."""
    link: bool = False
    """Make a folder's files hardlinks into the store, which must not be written to."""
    prefix: str = ""
    """Path that the files name. By default a folder's own path; an archive's is set when it is unpacked, by `bin/activate`
    or `bin/lamella-unpack`; a squashfs image can't be changed later, and has the image prefix."""


def export(
    reference: str,
    path: str,
    *,
    options: ExportOptions = ExportOptions(),
    platform: Platform | None = None,
    store: Store | None = None,
    trust: Trust = Trust(),
    progress: Progress = _SILENT,
) -> Exported:
    """Pull the missing layers of `reference` and write an ordinary copy of the environment to `path`, new or empty.

    `platform`: by default this machine's. The next export to the same folder removes what a killed one left. Raises
    `ExportError`, and what `pull` raises; then nothing is left at `path`.
    """
    from lamella.layers.pulling import pull

    store = store or Store()
    path = os.path.abspath(path)
    wanted = options.format or format_of(path)
    if options.link and wanted != "dir":
        raise ExportError(f"--link {path}: only a folder can hold links, not {wanted}; remove --link")
    at = (
        (options.prefix.rstrip("/") or options.prefix)
        if options.prefix
        else os.path.realpath(path)
        if wanted == "dir"
        else ""
    )
    try:
        if at:
            check_prefix(at)
        _check_free(path, folder=wanted == "dir")
    except CannotRelocate as error:
        raise ExportError(str(error)) from error
    except OSError as error:
        raise _explained(path, error) from error
    if wanted == "squashfs" and not shutil.which("mksquashfs"):
        raise ExportError("mksquashfs: not found on PATH; install squashfs-tools, or export another format")
    leased = pull.leased(reference, store=store, platform=platform, trust=trust, progress=progress)
    with leased as pulled, ExitStack() as undo:
        environment = pulled.environment
        at = at or environment.prefix
        try:
            # A tree is laid out and then moves itself; an archive is written with its files rewritten.
            inside = at if wanted in _WRITERS else environment.prefix
            folders = lowerdirs.for_prefix(store, environment, inside)
            more = _more(inside, folders)
            if wanted != "squashfs" and not options.link:
                more |= sources.checked(environment, folders)
            listed = archive.entries(folders, more, activate_script.LEFT_OUT)
            total = sum(_size(entry) for entry in listed)
            work = _work_folder(path, undo)
            made = f"{work}/made"
            if wanted in _WRITERS:
                _archive(made, wanted, listed, total, progress)
            else:
                tree_path = made if wanted == "dir" else f"{work}/tree"
                ways = _LINKS if options.link else _EITHER if wanted == "squashfs" else _COPIES
                with _counted(progress, len(listed)) as done:
                    _make_tree(tree_path, folders, more, at, ways=ways, done=done)
                if wanted == "squashfs":
                    os.chmod(tree_path, 0o755)  # in an image it is root's, and everybody's to read
                    _squash(tree_path, made)
            _put(made, path)
        except MountError as error:
            cause = error.__cause__
            failed = (
                _explained(path, cause, link=options.link) if isinstance(cause, OSError) else ExportError(str(error))
            )
            raise failed from error
        except OSError as error:
            raise _explained(path, error) from error
    return Exported(pulled.reference, path, wanted, at, len(listed), total)


def _work_folder(path: str, undo: ExitStack) -> str:
    """A folder on the file system of `path`, which goes with `undo`; and with it what killed exports left beside it."""
    above = path if os.path.isdir(path) else os.path.dirname(path)
    _make_folders(above, undo)
    with suppress(PermissionError):  # a folder may be there to write into alone
        for name in _left(above):
            _remove_dead(f"{above}/{name}")
    work = f"{above}/{_WORK}{os.urandom(4).hex()}"
    os.mkdir(work, 0o700)
    undo.callback(shutil.rmtree, work, ignore_errors=True)
    lock = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    undo.callback(os.close, lock)
    with suppress(OSError):  # a network file system may lock no folders: then the rest stays
        fcntl.flock(lock, fcntl.LOCK_EX)
    return work


def _put(made: str, path: str) -> None:
    if not os.path.isdir(path):
        # It appears whole, or not at all.
        os.rename(made, path)
        return
    # An empty folder stays itself, since it may be a working directory or a mount. Programs come last.
    for name in sorted(os.listdir(made), key=lambda name: name == "bin"):
        os.rename(f"{made}/{name}", f"{path}/{name}")


def _left(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(_WORK)]


def _archive(path: str, wanted: Format, listed: Sequence[archive.Member], total: int, progress: Progress) -> None:
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
    more: Mapping[str, tuple[bytes, int]],
    prefix: str,
    *,
    ways: Sequence[link_tree.How],
    done: Callable[[int], None],
) -> None:
    os.mkdir(path, 0o755)
    for how in ways:
        try:
            link_tree.lay(folders, path, how, done)
            break
        except MountError:
            if how == ways[-1]:
                raise
    for name, (content, mode) in more.items():
        link_tree.put(path, name, content, mode)
    for name in activate_script.LEFT_OUT:
        link_tree.remove(f"{path}/{name}")
    try:
        move(path, prefix)
    except CannotRelocate as error:
        raise ExportError(f"cannot relocate the environment to {prefix}: {error}") from error


def _squash(folder: str, path: str) -> None:
    command = ["mksquashfs", folder, path, "-all-root", "-noappend", "-no-progress", "-quiet", "-no-xattrs"]
    command += ["-mkfs-time", str(archive.TIME), "-all-time", str(archive.TIME)]
    # Its own default, gzip, takes ten times as long; some distributions build it without zstd.
    for compression in (["-comp", "zstd", "-Xcompression-level", "3"], []):
        made = subprocess.run([*command, *compression], check=False, capture_output=True, text=True)
        if not made.returncode:
            return
        with suppress(FileNotFoundError):
            os.unlink(path)
    lines = (made.stderr or made.stdout).strip().splitlines()
    raise ExportError(f"mksquashfs: {lines[-1] if lines else f'exit code {made.returncode}'}")


def _more(prefix: str, folders: Sequence[str]) -> dict[str, tuple[bytes, int]]:
    conda = any(os.path.isdir(f"{folder}/conda-meta") for folder in folders)
    variables: dict[str, str] = {}
    for folder in folders:
        variables |= activation.conda_variables(folder)
    return activate_script.files(prefix, variables, conda=conda)


def _check_free(path: str, *, folder: bool) -> None:
    if not os.path.lexists(path):
        return
    if folder and os.path.isdir(path) and set(os.listdir(path)) <= set(_left(path)):
        return
    raise ExportError(f"{path}: already exists; remove it, or use another name")


def _explained(path: str, error: OSError, *, link: bool = False) -> ExportError:
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = f"the disk of {above} is full: free space, or export to another one"
    elif error.errno == errno.EXDEV and link:
        why = "no hard link leads to another file system than the store's: leave out --link, or name a folder there"
    elif error.errno == errno.EPERM and link:
        why = "this user may not make hard links to the store's files, which others own: leave out --link"
    elif not os.path.isdir(above):
        why = f"{above} is not a directory"
    else:
        why = error.strerror or str(error)
    return ExportError(f"{path} can't be written: {why}")


def _size(entry: archive.Member) -> int:
    return os.lstat(entry.source).st_size if entry.source else len(entry.content)


def _make_folders(path: str, undo: ExitStack) -> None:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        undo.callback(_remove_empty, folder)  # which a folder is not any more where the export has come to its end


def _remove_dead(path: str) -> None:
    # Another user's is that user's to remove, and what another export still writes is locked.
    with suppress(OSError):
        if os.lstat(path).st_uid == os.geteuid():
            remove_left(path)


def _remove_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)
