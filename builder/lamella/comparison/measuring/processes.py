"""Processor seconds and memory of a tree of processes, daemons included, from /proc.

The comparison is a child subreaper (prctl(2)): a daemon that forks itself free stays in the tree, and the time of a process that
ended moves to its parent when it is reaped, so no time is lost between two readings.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
FIRST_SECONDS, MOST_SECONDS = 0.005, 0.25
"""Pause between two samples of memory: it grows, so that short steps have samples and long ones cost little."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of /proc/PID/stat."""

    pid: int
    parent: int
    state: str
    own_seconds: float
    """Of its threads."""
    reaped_seconds: float
    """Of its children that have ended, and theirs."""


@contextlib.contextmanager
def subreaper() -> Iterator[None]:
    """Adopt orphans of this process's children for as long as the context lasts."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def processes() -> dict[int, Process]:
    """Return every process of this machine by number."""
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (process := read_process(int(name))):
            found[process.pid] = process
    return found


def read_process(pid: int) -> Process | None:
    """Return the process, or None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name is in parentheses and may hold spaces and parentheses of its own.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if not fields:
        return None
    times = [int(each) / _TICKS for each in fields[11:15]]
    return Process(pid, int(fields[1]), fields[0].decode(), times[0] + times[1], times[2] + times[3])


def below(root: int, listed: dict[int, Process], without: Collection[int] = ()) -> list[Process]:
    """Return the descendants of `root`, without the trees whose roots are in `without`."""
    children: dict[int, list[int]] = {}
    for process in listed.values():
        children.setdefault(process.parent, []).append(process.pid)
    found, left = [], [root]
    while left:
        for pid in children.get(left.pop(), ()):
            if pid not in without:
                found.append(listed[pid])
                left.append(pid)
    return found


def processor_seconds(without: Collection[int]) -> float:
    """Return the seconds of all descendants of this process since it began, without its own."""
    found = below(os.getpid(), processes(), without)
    own = os.times()
    return own.children_user + own.children_system + sum(each.own_seconds + each.reaped_seconds for each in found)


def reap_orphans(known: Collection[int]) -> None:
    """Reap adopted processes that ended; `known` are children with a parent object that waits for them."""
    for process in below(os.getpid(), processes()):
        if process.parent == os.getpid() and process.state == "Z" and process.pid not in known:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)


def memory(found: Collection[Process]) -> int:
    """Return the bytes of memory of processes: their proportional set sizes, so that shared pages count once."""
    total = 0
    for process in found:
        with contextlib.suppress(OSError, ValueError), open(f"/proc/{process.pid}/smaps_rollup", "rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    total += 1024 * int(line.split()[1])
                    break
    return total


class PeakMemory:
    """Samples the memory of this process's descendants in a thread, until it is closed."""

    def __init__(self, without: Collection[int]) -> None:
        self.bytes = 0
        self._without = without
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def close(self) -> int:
        """End, and return the largest sample in bytes."""
        self._ended.set()
        self._thread.join()
        return self.bytes

    def _sample(self) -> None:
        pause = FIRST_SECONDS
        while not self._ended.wait(pause):
            self.bytes = max(self.bytes, memory(below(os.getpid(), processes(), self._without)))
            pause = min(2 * pause, MOST_SECONDS)
