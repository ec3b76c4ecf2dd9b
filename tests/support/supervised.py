"""Daemons that end with the test that started them, also if the test is killed: `supervised`, and the supervisor itself.

    python tests/support/supervised.py COMMAND...

runs COMMAND until it ends or standard input does, then kills everything that COMMAND started, daemons in sessions of their
own included: as a subreaper (prctl(2)) it is the parent of each process whose own parent has ended.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def supervised(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start `command` under a supervisor; nothing that it starts outlives the block, nor this process."""
    program = [sys.executable, __file__, *command]
    # In a session of its own: a signal to the tests' group, such as ^C, must not end it before its work is done.
    with subprocess.Popen(program, stdin=subprocess.PIPE, text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()


def main(command: Sequence[str]) -> int:
    """Supervise `command`; its exit code, or 0 if standard input ended first."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    code = None
    while code is None:
        ready, _, _ = select.select([0, reader], [], [])
        if reader in ready:
            os.read(reader, 4096)
            code = _reap(process.pid)
        if 0 in ready and not os.read(0, 4096):
            break
    while _kill_children(os.getpid()):
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)
    process.returncode = code or 0
    return process.returncode


def _reap(wanted: int) -> int | None:
    """Wait for every child that has ended: a daemon may watch a grandchild by its process. The exit code of `wanted`."""
    code = None
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == wanted:
                code = os.waitstatus_to_exitcode(ended[1])
    return code


def _kill_children(parent: int) -> int:
    """Kill each child; those that they leave are children of this process then. The number of children."""
    children = []
    for entry in os.listdir("/proc"):
        with suppress(OSError, ValueError, IndexError):
            # The name, in parentheses, can hold spaces.
            if int(Path(f"/proc/{entry}/stat").read_text(errors="replace").rpartition(")")[2].split()[1]) == parent:
                children.append(int(entry))
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return len(children)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
