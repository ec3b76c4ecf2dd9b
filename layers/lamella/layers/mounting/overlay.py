"""One environment out of many layers' folders, by the kernel: overlayfs, or a bind mount of a single folder.

Folders are given lowest first, as a manifest lists layers; where two hold one path, the later one's is seen. Nothing
here tries another way when one fails: the ladder is in `assemble`. Errors are the kernel's own, as `OSError`.
Sources: Documentation/filesystems/overlayfs.rst, fsopen(2), mount(2).
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from lamella.layers.mounting.kernel import (
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REMOUNT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.mounting.kernel import Kernel

MAX_LOWERS = 500
"""Lower folders of one overlay; the kernel refuses more (fs/overlayfs/params.h, OVL_MAX_STACK)."""
SOURCE = "lamella"
"""What /proc/mounts shows as the device, unless `source` says otherwise."""

_MAX_VALUE = 255  # bytes of one fsconfig string
_MAX_NAMES = 32 << 10
"""Bytes of all folders' names in the mount's line of /proc/self/mountinfo. Docker, containerd and runc read it with Go's
bufio.Scanner, which refuses lines of 64 KiB: "Devices cgroup isn't mounted", and no container starts on that node."""
_INHERITED = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME
# Changes outlive the layers below them, the next time those of another version. Both options, on by default in some
# kernels, tie a folder of changes to its layers: "Stale file handle", and files without content.
_INDEPENDENT = ("index", "metacopy")
_NO_DESCRIPTORS = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})
"""fsopen(2) is new in Linux 5.2, `lowerdir+` in 6.7, and a seccomp filter can refuse both."""
_MAX_OPTIONS = 4095  # bytes of mount(2)'s data: a page with its final NUL


class Upper(NamedTuple):
    """Where changes go. Both folders exist, are empty or an earlier mount's, and are on one file system."""

    upper: str
    work: str


def by_descriptors(
    kernel: Kernel, lowers: Sequence[str], target: str, upper: Upper | None = None, source: str = SOURCE
) -> None:
    """Mount with one `lowerdir+` per folder, which Linux has since 6.7; read-only unless there is an `upper`."""
    mount = _detached(kernel, lowers, upper, source)
    try:
        kernel.move_mount(mount, target)
    finally:
        kernel.close(mount)


def replace(kernel: Kernel, lowers: Sequence[str], target: str, source: str = SOURCE) -> bool:
    """Show `lowers` at `target` in place of the topmost mount there, which its users keep; return whether atomically.

    Before Linux 6.5 the folder below both is seen for the time between two system calls. The new mount is made before the
    former one is detached: one that cannot be made changes nothing.
    """
    try:
        mount = _detached(kernel, lowers, None, source)
    except OSError as error:
        if error.errno not in _NO_DESCRIPTORS:
            raise
        _replace_by_options(kernel, lowers, target, source)
        return False
    try:
        try:
            kernel.move_mount(mount, target, beneath=True)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            kernel.umount(target, MNT_DETACH)
            kernel.move_mount(mount, target)
            return False
        kernel.umount(target, MNT_DETACH)
        return True
    finally:
        kernel.close(mount)


def _replace_by_options(kernel: Kernel, lowers: Sequence[str], target: str, source: str) -> None:
    import tempfile

    elsewhere = tempfile.mkdtemp(prefix="lamella-")
    try:
        by_options(kernel, lowers, elsewhere, source=source)
        try:
            kernel.umount(target, MNT_DETACH)
            # Bound, not moved: no mount below a shared one can be moved (mount(2), MS_MOVE).
            kernel.mount(elsewhere, target, flags=MS_BIND)
        finally:
            kernel.umount(elsewhere, MNT_DETACH)
    finally:
        # Never emptied: if it could not be unmounted, what it holds is the environment.
        with suppress(OSError):
            os.rmdir(elsewhere)


def _detached(kernel: Kernel, lowers: Sequence[str], upper: Upper | None, source: str) -> int:
    """A descriptor of such a mount that is nowhere yet."""
    filesystem = kernel.fsopen("overlay")
    folders: list[int] = []
    try:
        kernel.fsconfig(filesystem, "source", source)
        longest = _MAX_VALUE if sum(len(f",lowerdir+={lower}") for lower in lowers) <= _MAX_NAMES else 0
        for lower in reversed(lowers):
            kernel.fsconfig(filesystem, "lowerdir+", _short(lower, folders, longest))
        if upper:
            kernel.fsconfig(filesystem, "upperdir", _short(upper.upper, folders))
            kernel.fsconfig(filesystem, "workdir", _short(upper.work, folders))
            for option in _INDEPENDENT:
                kernel.fsconfig(filesystem, option, "off")
            _user_attributes(kernel, filesystem)
        kernel.fscreate(filesystem)
        return kernel.fsmount(filesystem, 0 if upper else MOUNT_ATTR_RDONLY)
    finally:
        kernel.close(filesystem)
        for folder in folders:
            os.close(folder)


def by_options(
    kernel: Kernel, lowers: Sequence[str], target: str, upper: Upper | None = None, source: str = SOURCE
) -> None:
    """Mount with mount(2), whose options fit one page: the folders get names of one to three characters first.

    Changes the process's working directory for the time of the call.
    """
    import shutil
    import tempfile

    names = tempfile.mkdtemp(prefix="lamella-")
    before = os.open(".", os.O_PATH | os.O_DIRECTORY)
    target = os.path.abspath(target)
    try:
        short = []
        for number, lower in enumerate(reversed(lowers)):
            os.symlink(os.path.abspath(lower), f"{names}/{number:x}")
            short.append(f"{number:x}")
        options = f"lowerdir={':'.join(short)}"
        if upper:
            os.symlink(os.path.abspath(upper.upper), f"{names}/u")
            os.symlink(os.path.abspath(upper.work), f"{names}/w")
            options += ",upperdir=u,workdir=w" + "".join(f",{option}=off" for option in _INDEPENDENT)
            options += ",userxattr" if _in_user_namespace() else ""
        if len(options) > _MAX_OPTIONS:
            raise OSError(f"{len(lowers)} layers do not fit into one page of mount options")
        os.chdir(names)
        kernel.mount(source, target, "overlay", 0 if upper else MS_RDONLY, options)
    finally:
        os.fchdir(before)
        os.close(before)
        # The kernel has looked the links up; they are not needed again.
        shutil.rmtree(names)


def bind(kernel: Kernel, folder: str, target: str, *, writable: bool = False) -> None:
    """Show `folder` at `target` too; read-only unless `writable`. An overlay of one folder is refused by the kernel."""
    kernel.mount(folder, target, flags=MS_BIND)
    if writable:
        return
    try:
        # A remount states all flags anew, and those that a user namespace inherited must not be dropped (EPERM).
        kept = os.statvfs(folder).f_flag & _INHERITED
        kernel.mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY | kept)
    except OSError:
        kernel.umount(target)
        raise


def _short(path: str, folders: list[int], longest: int = _MAX_VALUE) -> str:
    # Through /proc a path of any length is a short one; most are short enough as they are.
    if len(path) <= longest and path.isascii():
        return path
    folders.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return f"/proc/self/fd/{folders[-1]}"


def _user_attributes(kernel: Kernel, filesystem: int) -> None:
    # Whiteouts and opaque folders are marked in trusted.*, which only the first user namespace may write.
    if _in_user_namespace():
        kernel.fsconfig(filesystem, "userxattr")


def _in_user_namespace() -> bool:
    try:
        with open("/proc/self/uid_map", encoding="utf-8") as lines:
            return lines.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False
