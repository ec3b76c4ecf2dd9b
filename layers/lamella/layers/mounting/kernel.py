"""The kernel's calls that mounting needs, behind one narrow interface.

`LinuxKernel` makes them through libc's `syscall`: Python has none of them before 3.12, and most of them in no version.
A call that fails raises `OSError` with the kernel's errno; where the kernel explains itself (fsopen(2), "message log"),
that explanation is the error's text. Sources: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), mount(2), umount2(2),
unshare(2), pivot_root(2).
"""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING, Any, Protocol

from lamella.layers.errors import Unsupported

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MOUNT_ATTR_RDONLY = 1
MNT_DETACH = 2
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_CMD_CREATE = 6
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MOVE_MOUNT_BENEATH = 0x200
_AT_FDCWD = -100

# One number on every architecture that has the call (asm-generic/unistd.h), but for pivot_root.
_MOVE_MOUNT = 429
_FSOPEN = 430
_FSCONFIG = 431
_FSMOUNT = 432
_PIVOT_ROOT = {"x86_64": 155, "i686": 217, "armv7l": 218, "ppc64le": 203, "s390x": 217}
_PIVOT_ROOT_GENERIC = 41  # aarch64, riscv64, loongarch64


class Kernel(Protocol):
    """The calls of the kernel that mounting needs. Each is one system call; the caller closes the descriptors that it gets."""

    def fsopen(self, fstype: str) -> int:
        """A descriptor of a new, unconfigured file system of `fstype`."""

    def fsconfig(self, filesystem: int, key: str, value: str | None = None) -> None:
        """Set an option; None sets a flag. A value holds at most 255 bytes."""

    def fscreate(self, filesystem: int) -> None:
        """Make the configured file system real."""

    def fsmount(self, filesystem: int, attributes: int = 0) -> int:
        """A descriptor of a mount of it that is nowhere yet; closing it drops the mount, unless it was moved."""

    def move_mount(self, mount: int, target: str, *, beneath: bool = False) -> None:
        """Put that mount at `target`; `beneath` the topmost mount there, which Linux has since 6.5 (else EINVAL)."""

    def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
        """mount(2): `data` holds at most one page, and longer is cut short without a word."""

    def umount(self, target: str, flags: int = 0) -> None:
        """Take away the topmost mount at `target`."""

    def unshare(self, flags: int) -> None:
        """Give this process namespaces of its own; a user namespace only to a process of one thread."""

    def pivot_root(self, new: str, old: str) -> None:
        """Make the mount at `new` this namespace's root and leave the old root at `old`."""

    def sources(self, target: str) -> list[str]:
        """What each mount at `target` is of, as `fsconfig` or `mount` named its source, the topmost last."""

    def close(self, descriptor: int) -> None:
        """Close what `fsopen` or `fsmount` gave."""


class LinuxKernel:
    """The running kernel's calls. Stateless: one is as good as another."""

    def fsopen(self, fstype: str) -> int:
        """See `Kernel`."""
        return self._call("sn", _FSOPEN, fstype.encode(), _FSOPEN_CLOEXEC)

    def fsconfig(self, filesystem: int, key: str, value: str | None = None) -> None:
        """See `Kernel`."""
        command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
        encoded = None if value is None else os.fsencode(value)
        self._call("nnssn", _FSCONFIG, filesystem, command, key.encode(), encoded, 0, log=filesystem)

    def fscreate(self, filesystem: int) -> None:
        """See `Kernel`."""
        self._call("nnssn", _FSCONFIG, filesystem, _FSCONFIG_CMD_CREATE, None, None, 0, log=filesystem)

    def fsmount(self, filesystem: int, attributes: int = 0) -> int:
        """See `Kernel`."""
        return self._call("nnn", _FSMOUNT, filesystem, _FSMOUNT_CLOEXEC, attributes, log=filesystem)

    def move_mount(self, mount: int, target: str, *, beneath: bool = False) -> None:
        """See `Kernel`."""
        flags = _MOVE_MOUNT_F_EMPTY_PATH | (_MOVE_MOUNT_BENEATH if beneath else 0)
        self._call("nsnsn", _MOVE_MOUNT, mount, b"", _AT_FDCWD, os.fsencode(target), flags)

    def mount(self, source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
        """See `Kernel`."""
        self._check(
            _libc().mount(
                os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags, os.fsencode(data) or None
            )
        )

    def umount(self, target: str, flags: int = 0) -> None:
        """See `Kernel`."""
        self._check(_libc().umount2(os.fsencode(target), flags))

    def unshare(self, flags: int) -> None:
        """See `Kernel`."""
        self._check(_libc().unshare(flags))

    def pivot_root(self, new: str, old: str) -> None:
        """See `Kernel`."""
        number = _PIVOT_ROOT.get(os.uname().machine, _PIVOT_ROOT_GENERIC)
        self._call("ss", number, os.fsencode(new), os.fsencode(old))

    def sources(self, target: str) -> list[str]:
        """See `Kernel`."""
        from lamella.layers import mountinfo

        return [each.source for each in mountinfo.mounts() if each.point == target]

    def close(self, descriptor: int) -> None:
        """See `Kernel`."""
        os.close(descriptor)

    def _call(self, shape: str, number: int, *arguments: int | bytes | None, log: int | None = None) -> int:
        return self._check(_syscall(shape)(number, *arguments), log)

    def _check(self, result: int, log: int | None = None) -> int:
        if result >= 0:
            return result
        import ctypes

        errno = ctypes.get_errno()
        raise OSError(errno, (_messages(log) if log is not None else "") or os.strerror(errno))


def here() -> Kernel:
    """This machine's kernel; raises `Unsupported` unless it is Linux."""
    if sys.platform != "linux":
        raise Unsupported("mounting an environment needs Linux; use a Linux container or virtual machine")
    return LinuxKernel()


def _messages(log: int) -> str:
    # "e overlay: too many lower directories" and the like, one for each read, until there is no more.
    lines = []
    while True:
        try:
            line = os.read(log, 4096)
        except OSError:  # ENODATA: that was all; EINVAL: this kernel keeps no log
            break
        if line[:2] in (b"e ", b"w "):
            lines.append(line[2:].decode(errors="replace").strip())
    return "; ".join(lines)


@functools.cache
def _syscall(shape: str) -> Callable[..., int]:
    """syscall(2) with arguments that are numbers (n) and strings (s): converted by a prototype they take half the time."""
    import ctypes

    kinds = {"n": ctypes.c_long, "s": ctypes.c_char_p}
    function: Any = _libc()["syscall"]
    function.restype = ctypes.c_long
    # Without c_long an int is passed as 32 bits, and the upper half of its register is whatever was there.
    function.argtypes = (ctypes.c_long, *(kinds[each] for each in shape))
    return function  # type: ignore[no-any-return]


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    libc: Any = ctypes.CDLL(None, use_errno=True)
    libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
    libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
    libc.unshare.argtypes = [ctypes.c_int]
    return libc  # type: ignore[no-any-return]
