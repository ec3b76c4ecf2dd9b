"""The scratch folder of a comparison: claimed while it runs, and left by no process, mount or file afterwards.

A comparison that was killed leaves its folder with a claim whose process is gone: the next one beside it clears it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from typing import TYPE_CHECKING

from lamella.comparison.errors import ComparisonError
from lamella.comparison.measuring.processes import below, processes
from lamella.comparison.programs.commands import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

PREFIX = "lamella-compare-"
CLAIM = "claim.json"
_SHORT = 15
"""Most characters of the path that holds folders of sockets: Ray puts 92 after it, of the 107 that there are."""
_ENDING_SECONDS = 10.0
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def scratch_folder(parent: str | None) -> Iterator[str]:
    """Make a claimed folder in `parent`, default the system's temporary folder, and clear it at the end, whatever happens."""
    where = os.path.abspath(parent or tempfile.gettempdir())
    try:
        os.makedirs(where, exist_ok=True)
    except OSError as error:
        raise ComparisonError(f"--scratch {where}: {error.strerror}; name another folder") from error
    for former in {where, _short_parent()}:
        clear_abandoned(former)
    with _one_signal(), contextlib.ExitStack() as stack:
        # Also folders of sockets whose own clearing the signal cut short.
        stack.callback(_clear_own)
        folder = claimed(where)
        stack.callback(clear, folder)
        yield folder


def _clear_own() -> None:
    for each in _claims(_short_parent(), ended=False):
        clear(each)


def _short_parent() -> str:
    """Return the folder of folders for sockets: the system's for temporary files, unless its own path is long."""
    parent = tempfile.gettempdir()
    return parent if len(parent) <= _SHORT else "/tmp"


def claimed(parent: str) -> str:
    """Make a folder in `parent` with a claim of this process."""
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
    with open(os.path.join(folder, CLAIM), "w", encoding="utf-8") as file:
        json.dump({"pid": os.getpid(), "started": _started(os.getpid()), "boot": _boot()}, file)
    return folder


def clear_abandoned(parent: str) -> None:
    """Clear this user's folders in `parent` that a comparison left when it was killed."""
    for folder in _claims(parent, ended=True):
        clear(folder)


@contextlib.contextmanager
def short_folder() -> Iterator[str]:
    """Make a claimed folder with a short path, for sockets: theirs have room for 107 bytes. Clear it at the end."""
    folder = claimed(_short_parent())
    try:
        yield folder
    finally:
        clear(folder)


def clear(folder: str) -> None:
    """End the processes of the comparison in `folder`, and remove its mounts and files. This is idempotent."""
    end_processes(folder)
    unmount(folder)
    shutil.rmtree(folder, ignore_errors=True)


def end_processes(folder: str) -> None:
    """End the processes of the comparison, or of a part of it, that work in `folder`. This is idempotent."""
    until = time.monotonic() + _ENDING_SECONDS
    ended: set[int] = set()
    while (left := _left(folder)) and time.monotonic() < until:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        ended |= left
        time.sleep(0.01)
    # Those that this process adopted after it had tried to wait for them.
    for pid in ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def unmount(folder: str) -> None:
    """Detach every mount below `folder`."""
    for point in _mounts(folder):
        _detach(point)


def _left(folder: str) -> set[int]:
    """Return the processes of the comparison: marked, in its folder, or below one of these.

    Programs start others without its mark, as Ray does, or write their title over it. Below this process, a working folder
    tells them; elsewhere that may be the user's shell.
    """
    mark, real = f"{MARK}={folder}\0".encode(), os.path.realpath(folder)
    listed, found = processes(), set()
    own = {each.pid for each in below(os.getpid(), listed)}
    for pid in listed:
        if pid == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if pid in own and _is_below(os.readlink(f"/proc/{pid}/cwd"), real):
                found.add(pid)
        with contextlib.suppress(OSError):
            with open(f"/proc/{pid}/environ", "rb") as file:
                marked = mark in file.read()
            if marked or _is_below(os.readlink(f"/proc/{pid}/root"), real):
                found.add(pid)
    for pid in tuple(found):
        found |= {each.pid for each in below(pid, listed)}
    return found - {os.getpid()}


def _mounts(folder: str) -> list[str]:
    """Return the mount points below `folder`, the innermost first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = [re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in file]
    return [each for each in reversed(points) if _is_below(each, folder)]


def _detach(point: str) -> None:
    import ctypes

    # MNT_DETACH | UMOUNT_NOFOLLOW, umount2(2).
    ctypes.CDLL(None).umount2(os.fsencode(point), 2 | 8)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _claims(parent: str, *, ended: bool) -> list[str]:
    """Return this user's folders in `parent` that a process claimed which has ended, or that this process claimed."""
    found = []
    with contextlib.suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            # Another program's folder, or one whose claim is being written, has none.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                with open(os.path.join(entry.path, CLAIM), encoding="utf-8") as file:
                    claim = json.load(file)
                running = claim["boot"] == _boot() and claim["started"] == _started(claim["pid"])
                if (not running) if ended else (running and claim["pid"] == os.getpid()):
                    found.append(entry.path)
    return found


def _started(pid: int) -> str:
    """Return the start of a process in ticks since the boot; empty for a process that has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[19].decode()
    except OSError:
        return ""


def _boot() -> str:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


@contextlib.contextmanager
def _one_signal() -> Iterator[None]:
    """Let the first SIGINT, SIGTERM or SIGHUP end the comparison, and later ones wait until everything is cleared."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if seen:
            return
        seen = True
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    former = {number: signal.signal(number, handle) for number in _ENDING}
    try:
        yield
    finally:
        for number, each in former.items():
            signal.signal(number, each)
