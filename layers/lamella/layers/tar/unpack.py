"""Write a tar's entries below one folder, and nowhere else.

Every name is opened relative to the descriptor of its own folder, one component at a time, without following links,
and every file is created anew: whatever earlier entries (or another process) put there, a write can't leave the
folder. Owners and finer permissions are not kept: files are 0644 or 0755, folders 0755, whatever the umask.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lamella.layers.errors import StoreError, UnsafeLayer
from lamella.layers.tar.reader import Archive, Entry, shown

if TYPE_CHECKING:
    from lamella.layers.oci.storage import Reader

if sys.platform != "win32":  # imported there by programs that push, and not used
    _FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    _CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DISK_BLOCK = 4096
_LOOK = 4096
"""Entries after which to look again, at the latest, how many files the disk has room for."""
_KEPT_FREE = 10_000
"""Files that a disk keeps room for, or a hundredth of all that it can hold."""
_NANOSECONDS = 1_000_000_000


class Writer(Protocol):
    """What takes bytes: an open file, or a compressor in front of one."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Number of entries written, and the bytes that files and folders take on a disk of 4 KiB blocks."""

    entries: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a tar beside those of its stream."""

    below: str = ""
    """The image prefix that each entry must be in, such as /opt/env; empty for any path."""
    content: int | None = None
    """Bytes that all files may have together; None if nothing was announced."""


def unpack(stream: Reader, folder: int, skeleton: Writer | None = None, bounds: Bounds = Bounds()) -> Unpacked:
    """Write the tar in `stream` below the open, empty folder.

    `skeleton` gets every byte of the tar that is not a file's content, from which and the files the same tar can be made
    again. On any error the caller removes the files. Raises `UnsafeLayer`, `InvalidContent`,
    `StoreError` if the file system runs out of files, lacks links or imposes modes, and OSError if it refuses.
    """
    entries = written = content = 0
    look = 1
    archive = Archive(stream)
    below = os.fsencode(bounds.below).strip(b"/")
    inside = below + b"/" if below else b""
    with closing(_Tree(folder)) as tree:
        for entry in archive:
            entries += 1
            content += entry.size
            if not entry.path.startswith(inside):
                _check_is_above(entry, below)
            if bounds.content is not None and content > bounds.content:
                raise UnsafeLayer(f"its files have more than the {bounds.content} bytes that it announces")
            if entries == look:
                look += _files_left(folder)
            if skeleton:
                skeleton.write(archive.raw)
            if entry.kind == "file":
                written += entry.size + -entry.size % _DISK_BLOCK
                tree.add_file(entry, archive)
            elif entry.kind == "folder":
                written += _DISK_BLOCK
                tree.add_folder(entry)
            elif entry.kind == "symlink":
                tree.add_symlink(entry)
            else:
                tree.add_hardlink(entry)
    if skeleton:
        skeleton.write(archive.raw)
    return Unpacked(entries, written)


def _check_is_above(entry: Entry, below: bytes) -> None:
    # The folders from the root to the image prefix, and that itself.
    if entry.kind != "folder" or not (below + b"/").startswith(entry.path + b"/" if entry.path else b""):
        raise UnsafeLayer(f"{shown(entry.path)} is outside the image prefix {shown(b'/' + below)}")


def _files_left(folder: int) -> int:
    """Return after how many entries to look again whether the disk has room for more files."""
    # Announced are bytes. Without a look at the files left, one layer of empty ones could stop all others on this disk.
    disk = os.fstatvfs(folder)
    if not disk.f_files:  # a file system without a fixed number of them
        return _LOOK
    left = disk.f_favail - min(_KEPT_FREE, disk.f_files // 100)
    if left < 0:
        raise StoreError(
            f"the disk has room for {disk.f_favail} more files (inodes); free some with lamella gc, or set LAMELLA_STORE to "
            "another disk"
        )
    return min(_LOOK, left + 1)


class _Tree:
    """The folders from the root to where the last entry went, open: most entries are in the folder of the one before."""

    def __init__(self, root: int) -> None:
        self._parts: list[bytes] = []
        self._folders = [root]
        self._times: list[int] = [0]
        self._path = b""

    def close(self) -> None:
        self._leave(0)
        if self._times[0]:
            _set_time(self._folders[0], self._times[0])

    def add_file(self, entry: Entry, archive: Archive) -> None:
        parent, name = self._parent(entry)
        mode = 0o755 if entry.executable else 0o644
        try:
            file = os.open(name, _CREATE, mode, dir_fd=parent)
        except FileExistsError:
            raise _twice(entry) from None
        try:
            for piece in archive.content():
                view = piece
                while view:
                    view = view[os.write(file, view) :]
            ensure_mode(file, mode)
            _set_time(file, entry.mtime * _NANOSECONDS)
        finally:
            os.close(file)

    def add_folder(self, entry: Entry) -> None:
        if entry.path:
            parent, name = self._parent(entry)
            try:
                os.mkdir(name, 0o755, dir_fd=parent)
            except FileExistsError:
                raise _twice(entry) from None
            self._go(entry.path, entry)
        self._times[-1] = entry.mtime * _NANOSECONDS

    def add_symlink(self, entry: Entry) -> None:
        parent, name = self._parent(entry)
        try:
            os.symlink(entry.link, name, dir_fd=parent)
        except FileExistsError:
            raise _twice(entry) from None
        except OSError as error:
            raise _without(error, "symbolic links") from error
        moment = entry.mtime * _NANOSECONDS
        os.utime(name, ns=(moment, moment), dir_fd=parent, follow_symlinks=False)

    def add_hardlink(self, entry: Entry) -> None:
        parent, name = self._parent(entry)
        *folders, target = entry.link.split(b"/")
        refusal = UnsafeLayer(
            f"{shown(entry.path)} is a hardlink to {shown(entry.link)}, which is not a file that came before it"
        )
        source = os.dup(self._folders[0])
        try:
            for part in folders:
                inner = os.open(part, _FOLDER, dir_fd=source)
                os.close(source)
                source = inner
            linked = os.stat(target, dir_fd=source, follow_symlinks=False)
            if not stat.S_ISREG(linked.st_mode):
                raise refusal
            os.link(target, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
            if not os.path.samestat(linked, os.stat(name, dir_fd=parent, follow_symlinks=False)):
                raise StoreError("its file system makes copies in place of hard links")
        except FileExistsError:
            raise _twice(entry) from None
        except (FileNotFoundError, NotADirectoryError):
            raise refusal from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise refusal from None
            raise _without(error, "hard links") from error
        finally:
            os.close(source)

    def _parent(self, entry: Entry) -> tuple[int, bytes]:
        path, _, name = entry.path.rpartition(b"/")
        if path != self._path:
            self._go(path, entry)
        return self._folders[-1], name

    def _go(self, path: bytes, entry: Entry) -> None:
        parts = path.split(b"/") if path else []
        shared = 0
        for old, new in zip(self._parts, parts, strict=False):
            if old != new:
                break
            shared += 1
        self._leave(shared)
        for part in parts[shared:]:
            self._enter(part, entry)
        self._path = path

    def _enter(self, part: bytes, entry: Entry) -> None:
        here = self._folders[-1]
        try:
            inner = os.open(part, _FOLDER, dir_fd=here)
        except FileNotFoundError:
            os.mkdir(part, 0o755, dir_fd=here)
            inner = os.open(part, _FOLDER, dir_fd=here)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            through = b"/".join((*self._parts, part))
            raise UnsafeLayer(f"{shown(entry.path)} is refused: its parent {shown(through)} is not a folder") from None
        self._parts.append(part)
        self._folders.append(inner)
        # A folder that was left and is entered again gets back the time that it had.
        self._times.append(os.fstat(inner).st_mtime_ns)

    def _leave(self, depth: int) -> None:
        # A folder's time is set when its last entry is in it, since each one moves it.
        while len(self._parts) > depth:
            self._parts.pop()
            folder = self._folders.pop()
            try:
                ensure_mode(folder, 0o755)
                _set_time(folder, self._times.pop())
            finally:
                os.close(folder)
        self._path = b"/".join(self._parts)


def _set_time(file: int, moment: int) -> None:
    os.utime(file, ns=(moment, moment))


def ensure_mode(file: int, mode: int) -> None:
    """Give an open file or folder this mode; the umask, a default ACL or a setgid bit above may have given it another.

    Raises `StoreError` if the file system imposes another one, as FAT, NTFS and some network file systems do.
    """
    if stat.S_IMODE(os.fstat(file).st_mode) == mode:
        return
    with suppress(PermissionError):  # some file systems refuse, others ignore it
        os.fchmod(file, mode)
    found = stat.S_IMODE(os.fstat(file).st_mode)
    if found != mode:
        raise StoreError(f"its file system imposes modes: {found:04o} in place of {mode:04o}")


def _without(error: OSError, what: str) -> Exception:
    # link(2) and symlink(2) answer EPERM where the file system has no links; the user may write, since the folder is new.
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
        return StoreError(f"its file system has no {what}")
    return error


def _twice(entry: Entry) -> UnsafeLayer:
    return UnsafeLayer(f"{shown(entry.path)} is in the tar twice: readers disagree on which of the two counts")
