"""The `lamella` command as a process: streams, signals, and errors as messages and exit codes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType

TERMINATED = 128 + signal.SIGTERM
# The number is spelled out: Windows has no SIGPIPE.
PIPE_CLOSED = 128 + 13


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    if argv is None:
        argv = sys.argv[1:]
        _open_closed_streams()
        if not os.environ.get("LAMELLA_DEBUG"):
            sys.excepthook = _bug
        signal.signal(signal.SIGTERM, _terminated)
        _print_any_name()
        # A start makes tens of thousands of objects that stay, and Python would look for cycles in them fifty times.
        gc.set_threshold(50_000)
    try:
        # Not at the top: most of these objects are its modules'.
        from lamella.cli.dispatch import run_line

        code = run_line(list(argv))
        sys.stdout.flush()
    except SystemExit:
        raise  # Help or a signal: skip the imports of the error classes below.
    except BrokenPipeError:
        # The reader closed the pipe (`lamella scan | head`); Python must not flush to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except _expected() as error:
        if os.environ.get("LAMELLA_DEBUG") and not _is_usage(error):
            raise
        return _fail(error, argv)
    return code


def _expected() -> tuple[type[BaseException], ...]:
    # Called only after an exception, so that a start does not import these.
    from lamella.cli.errors import UsageError

    if "lamella.layers.errors" not in sys.modules:
        # Nothing has raised one of them.
        return (UsageError, OSError, MemoryError, KeyboardInterrupt)
    from lamella.layers import LamellaError

    return (UsageError, LamellaError, OSError, MemoryError, KeyboardInterrupt)


def _is_usage(error: BaseException) -> bool:
    from lamella.cli.errors import UsageError

    return isinstance(error, UsageError | KeyboardInterrupt | MemoryError)


def _is_no_reference(error: BaseException) -> bool:
    from lamella.layers import InvalidReference

    return isinstance(error, InvalidReference)


def _fail(error: BaseException, argv: Sequence[str]) -> int:
    from lamella.cli.dispatch import split
    from lamella.cli.failures import failure_of, report

    verb, words = split(list(argv))
    failure = failure_of(error)
    # A name without a registry is one of docker.io.
    if verb and (_is_no_reference(error) or failure.sentence.startswith("docker.io")):
        from dataclasses import replace

        from lamella.cli.habits import path_sentence

        failure = replace(failure, sentence=path_sentence(verb, words, failure.sentence))
    report(failure, as_json=_asks_for_json(argv))
    return failure.exit_code(verb)


def _asks_for_json(argv: Sequence[str]) -> bool:
    """Whether --json is among the words before --, also of a command line that is invalid."""
    return "--json" in argv[: list(argv).index("--") if "--" in argv else None]


def _bug(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    from lamella.cli.failures import internal, report

    report(internal(kind, error), as_json=_asks_for_json(sys.argv))


def _terminated(_number: int, _frame: FrameType | None) -> None:
    # An exception, so that locks, leases and partial files are cleaned up on the way out.
    raise SystemExit(TERMINATED)


def _open_closed_streams() -> None:
    """Open /dev/null for each standard stream that is closed: otherwise the next file would be the standard output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_RDWR)
            # The lowest free number: all below it are open by now.
            if descriptor == number:
                os.set_inheritable(descriptor, True)
            setattr(sys, name, os.fdopen(descriptor, "r" if number == 0 else "w", closefd=False))


def _print_any_name() -> None:
    # File names may hold bytes that are invalid in the encoding of stdout; a listing must not fail on them.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
