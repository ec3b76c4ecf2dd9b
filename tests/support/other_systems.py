"""A fresh process in which this machine looks like macOS or Windows to Python: what Linux alone has is absent."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

MODULES = {
    "darwin": ("spwd",),
    "win32": ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "readline"),
}
NAMES = {
    "darwin": {
        "os": (
            "O_TMPFILE", "O_PATH", "sched_getaffinity", "memfd_create", "pidfd_open", "getxattr", "setxattr", "listxattr",
            "removexattr", "posix_fadvise", "posix_fallocate", "copy_file_range", "unshare", "setns", "splice", "eventfd",
        ),
        "signal": ("pidfd_send_signal", "SIGRTMIN", "SIGPWR"),
    },
    "win32": {
        "os": (
            "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_TMPFILE", "fork", "geteuid", "getuid", "getgid",
            "getegid", "getgroups", "chown", "fchown", "lchown", "fchmod", "mkfifo", "mknod", "statvfs", "fstatvfs", "sched_getaffinity",
            "setsid", "killpg", "uname", "pread", "pwrite", "posix_fadvise", "posix_fallocate", "sendfile", "copy_file_range",
            "getxattr", "setxattr", "listxattr", "removexattr", "memfd_create", "pidfd_open", "unshare", "setns", "splice", "eventfd", "sysconf",
        ),
        "signal": ("SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGPIPE", "pthread_sigmask", "sigwait"),
    },
}  # fmt: skip

_START = """
import asyncio, concurrent.futures, http.client, importlib.abc, multiprocessing, os, shutil, signal, sqlite3, ssl, subprocess
import sys, tempfile, urllib.request, uuid, zipfile
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {modules!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
for name in {modules!r}:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, Hidden())
for module, names in {names!r}.items():
    for name in names:
        if hasattr(sys.modules[module], name):
            delattr(sys.modules[module], name)
sys.platform = {platform!r}
"""


def run(platform: str, code: str, *arguments: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process on `platform`, as `sys.platform` names it, with `arguments` in sys.argv.

    The standard library keeps the code of this system: what it has imported before the change stays.
    """
    start = _START.format(modules=MODULES[platform], names=NAMES[platform], platform=platform)
    return subprocess.run(
        [sys.executable, "-c", start + code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=dict(os.environ),
    )


def refuse_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse, as Windows does, to rename, link or remove a file that this process has open."""

    def refuse(call: Callable[..., Any], path: str, *others: Any, **options: Any) -> Any:
        if _is_open(path):
            raise PermissionError(errno.EACCES, "used by another process", path)
        return call(path, *others, **options)

    for name in ("replace", "rename", "link", "unlink", "remove"):
        monkeypatch.setattr(os, name, partial(refuse, getattr(os, name)))


def _is_open(path: str) -> bool:
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if os.path.samestat(os.fstat(int(descriptor)), os.lstat(path)):
                return True
        except OSError:
            continue  # closed meanwhile: the descriptor of the list itself
    return False


def ignore_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take names that differ in case alone for one, as the usual disks of macOS and Windows do; the first spelling stays."""
    listdir = os.listdir

    def on_disk(path: str) -> str:
        folder, name = os.path.split(path)
        if not name or folder == path:
            return path
        folder = on_disk(folder)
        try:
            names = listdir(folder or os.curdir)
        except OSError:
            names = []
        same = [each for each in names if each.casefold() == name.casefold()]
        return os.path.join(folder, name if name in names or not same else same[0])

    def call(wrapped: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return wrapped(*(on_disk(each) if isinstance(each, str) else each for each in arguments), **options)

    for name in ("open", "mkdir", "lstat", "stat", "scandir", "listdir", "replace", "unlink", "chmod", "rmdir"):
        monkeypatch.setattr(os, name, partial(call, getattr(os, name)))
