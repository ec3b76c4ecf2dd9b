"""The place of an export: whole there, or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import ExportError, MountError
from lamella.layers.exporting.target import STDOUT
from lamella.layers.hardening.permissions import foreign_link
from lamella.layers.relocation.move import PREFIX_FILE
from lamella.layers.store.incoming import remove_left

if sys.platform != "win32":  # imported there by programs that push, and not used
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.exporting.target import Target

_WORK = ".lamella-export-"


def check_free(target: Target) -> None:
    """Raise `ExportError` if something is at the path that this export must not replace."""
    path = target.path
    if path == STDOUT:
        return
    # A link in the place of the export itself is replaced, or refused, and not followed.
    if problem := foreign_link(path if target.is_folder else os.path.dirname(path)):
        raise ExportError(f"{path}: {problem}")
    if not os.path.lexists(path):
        return
    try:
        folder = os.path.isdir(path) and not os.path.islink(path)
        if target.is_folder and os.path.isdir(path) and set(os.listdir(path)) <= set(_left(path)):
            return
        if target.force and folder and target.is_folder and os.path.isfile(f"{path}/{PREFIX_FILE}"):
            return
    except OSError as error:
        raise explained(target, error) from error
    if not target.force:
        raise ExportError(f"{path}: already exists; remove it, or use another name; --force replaces an export")
    if folder:
        raise ExportError(f"{path}: a folder that is not an export; remove it yourself, or use another name")
    if target.is_folder:
        raise ExportError(f"{path}: not a folder; remove it, or use another name")


@contextmanager
def work_folder(target: Target) -> Iterator[str]:
    """Yield a folder on the file system of `path`, removed at exit with those that killed exports left beside it.

    An error of the operating system becomes an `ExportError`, and leaves nothing at the target's path.
    """
    with ExitStack() as undo:
        try:
            yield _work_folder(target.path, undo)
        except MountError as error:
            cause = error.__cause__
            raise explained(target, cause) if isinstance(cause, OSError) else ExportError(str(error)) from error
        except OSError as error:
            raise explained(target, error) from error


def put(made: str, path: str) -> None:
    """Move a whole export to `path`, in the place of another one or of nothing."""
    if not os.path.isdir(path) or os.path.islink(path):
        # Seen there, all of it is there.
        os.rename(made, path)
        return
    if os.path.isfile(f"{path}/{PREFIX_FILE}"):
        # Emptied, not replaced: like an empty folder below.
        for name in os.listdir(path):
            if f"{path}/{name}" != os.path.dirname(made):
                os.rename(f"{path}/{name}", f"{os.path.dirname(made)}/old-{name}")
    # An empty folder stays itself, since it may be a working directory, or a mount. Programs come last.
    for name in sorted(os.listdir(made), key=lambda name: name == "bin"):
        os.rename(f"{made}/{name}", f"{path}/{name}")


def explained(target: Target, error: OSError) -> ExportError:
    """Return `error` as one of the export to `target`."""
    path = target.path
    above = os.path.dirname(path)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = f"the disk of {above} is full: free space, or export to another one"
    elif error.errno == errno.EXDEV and target.link:
        why = "hard links cannot lead to another file system than the store's: leave out --link, or name a folder there"
    elif error.errno == errno.EPERM and target.link:
        why = "this user may not make hard links to the store's files, which others own: leave out --link"
    elif not os.path.isdir(above):
        why = f"{above} is not a folder"
    elif error.errno in (errno.EACCES, errno.EROFS):
        why = f"{error.strerror}: export to a folder that this user can write"
    else:
        why = f"{error.strerror or error}: export to another folder"
    return ExportError(f"{path} can't be written: {why}")


def _work_folder(path: str, undo: ExitStack) -> str:
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
    with suppress(OSError):  # a network file system may lock no folders: then leftovers stay
        fcntl.flock(lock, fcntl.LOCK_EX)
    return work


def _left(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(_WORK)]


def _make_folders(path: str, undo: ExitStack) -> None:
    missing = []
    while not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        undo.callback(_remove_empty, folder)  # not empty any more after an export to its end


def _remove_dead(path: str) -> None:
    # Another user's is that user's to remove, and one that another export still writes is locked.
    with suppress(OSError):
        if os.lstat(path).st_uid == os.geteuid():
            remove_left(path)


def _remove_empty(folder: str) -> None:
    with suppress(OSError):
        os.rmdir(folder)
