"""A mount namespace for one command, in which any folder can be a mount point.

Its mounts are seen by this process and its children alone and are gone with the last of them: nothing is created on the
machine's own file systems. Sources: user_namespaces(7), mount_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from lamella.layers.errors import MountError
from lamella.layers.mounting.kernel import (
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
)

if TYPE_CHECKING:
    from lamella.layers.mounting.kernel import Kernel

_OLD_ROOT = "/.lamella-old-root"


def enter(kernel: Kernel) -> None:
    """Move this process into a mount namespace of its own, and into a user namespace first if it must.

    In the user namespace this user and group stay what they are, so that files keep their owners; the capabilities
    that it brings are gone with the next exec. The process must have one thread. Raises `MountError` where the machine
    refuses; this process can still do then whatever it could before.
    """
    try:
        kernel.unshare(CLONE_NEWNS)
        _separate(kernel)
    except PermissionError:
        obstacle = _obstacle(kernel)
        if obstacle:
            raise MountError(f"user namespaces are not available ({obstacle})") from None
        _enter_user_namespace(kernel)
    except OSError as error:
        raise MountError(f"user namespaces are not available ({_why(error)})") from error


def _enter_user_namespace(kernel: Kernel) -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(CLONE_NEWUSER | CLONE_NEWNS)
    # Without it, gid_map is refused to an ordinary user (user_namespaces(7)).
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{uid} {uid} 1")
    _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _separate(kernel)


def _separate(kernel: Kernel) -> None:
    # Later mounts of the machine are seen here; mounts made here are never seen there.
    kernel.mount("", "/", flags=MS_REC | MS_SLAVE)


def _obstacle(kernel: Kernel) -> str:
    # Tried in a child: where a machine grants a user namespace but no rights in it (AppArmor's restriction), a process
    # that entered one can't get out again and can't even create files.
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        why = ""
        try:
            _enter_user_namespace(kernel)
        except OSError as error:
            why = _why(error)
        finally:
            os.write(writer, why.encode())
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        why = answer.read().decode()
    os.waitpid(child, 0)
    return why


def _why(error: OSError) -> str:
    # Linux's word for a limit on namespaces is the one for a full disk (user_namespaces(7)).
    if error.errno in (errno.ENOSPC, errno.EUSERS):
        return "their number is limited: raise the sysctls user.max_user_namespaces and user.max_mnt_namespaces"
    return error.strerror or str(error)


def make_place(kernel: Kernel, path: str) -> str:
    """Make sure that there is a folder at `path`, to mount on, and return its real path.

    If it is missing, the deepest folder above it that exists is covered by a file system in memory that shows
    everything that was in it, and `path`. That covered folder itself is read-only from then on: a file created
    directly in it would be lost without a word. The process must be in a namespace of its own (`enter`).
    """
    path = os.path.realpath(path)
    if os.path.isdir(path):
        return path
    ancestor = path
    while not os.path.lexists(ancestor):
        ancestor = os.path.dirname(ancestor)
    if not os.path.isdir(ancestor):
        raise MountError(f"{path}: {ancestor} is a file on this machine, not a folder")
    if ancestor == "/":
        _cover_root(kernel, path)
    else:
        _cover(kernel, ancestor, path)
    return path


def _cover(kernel: Kernel, folder: str, path: str) -> None:
    status = os.stat(folder)
    below = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        names = _names(folder)
        kernel.mount("lamella", folder, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={stat.S_IMODE(status.st_mode):o}")
        # In a user namespace, files can belong to the user alone.
        with suppress(OSError):
            os.chown(folder, status.st_uid, status.st_gid)
        _show(kernel, f"/proc/self/fd/{below}", folder, names)
        os.makedirs(path)
    finally:
        os.close(below)
    _make_read_only(kernel, folder)


def _cover_root(kernel: Kernel, path: str) -> None:
    names = _names("/")
    # Nothing can be mounted over / for a process whose root it is: the new root grows elsewhere and changes places
    # with it. Once it has, the folder that it covered is free again.
    somewhere = next(f"/{name}" for name in names if stat.S_ISDIR(os.lstat(f"/{name}").st_mode))
    kernel.mount("lamella", somewhere, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.mkdir(somewhere + _OLD_ROOT)
    kernel.pivot_root(somewhere, somewhere + _OLD_ROOT)
    os.chdir("/")
    _show(kernel, _OLD_ROOT, "", names)
    os.makedirs(path)
    kernel.umount(_OLD_ROOT, MNT_DETACH)
    os.rmdir(_OLD_ROOT)
    _make_read_only(kernel, "/")


def _show(kernel: Kernel, source: str, target: str, names: list[str]) -> None:
    for name in names:
        there, here = f"{source}/{name}", f"{target}/{name}"
        try:
            mode = os.lstat(there).st_mode
        except OSError:
            continue  # gone since, or another user's FUSE mount: this user could not have seen into it either
        if stat.S_ISLNK(mode):
            os.symlink(os.readlink(there), here)
        elif stat.S_ISDIR(mode):
            os.mkdir(here)
            kernel.mount(there, here, flags=MS_BIND | MS_REC)
        else:
            os.close(os.open(here, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            kernel.mount(there, here, flags=MS_BIND)


def _make_read_only(kernel: Kernel, folder: str) -> None:
    kernel.mount("", folder, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except PermissionError:
        return []  # what this user can't list stays unseen


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
