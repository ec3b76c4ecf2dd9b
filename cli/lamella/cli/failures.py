"""Failures as one line, a code, an exit code, and with --json a document.

Imported after a failure alone, so that a start loads none of the errors.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from dataclasses import dataclass

from lamella.cli.errors import UsageError
from lamella.cli.output import VERSION, writes_records
from lamella.cli.redaction import without_user

EXIT_CODES = {
    "failed": 1,
    "invalid": 2,
    "not-found": 3,
    "unauthorized": 4,
    "unreachable": 5,
    "no-space": 6,
    "busy": 7,
    "damaged": 8,
    "not-signed": 9,
    "not-allowed": 10,
    "unsupported": 11,
    "no-environment": 12,
    "changed": 13,
    "no-permission": 14,
    "internal": 1,  # Python's own, after an exception that nothing caught
    "not-executable": 126,
    "command-not-found": 127,
    "interrupted": 128 + signal.SIGINT,
}
"""The exit code of each failure; docs/reference/json.md describes them."""
OF_RUN = 125
"""What `run` exits with if it fails itself, as docker run, env and timeout do: other codes are the command's."""
_RUNS_OWN = frozenset({"not-executable", "command-not-found", "interrupted"})
_NUMBERS = {
    errno.ENOSPC: "no-space",
    errno.EDQUOT: "no-space",
    errno.EBUSY: "busy",
    errno.EACCES: "no-permission",
    errno.EPERM: "no-permission",
    errno.EROFS: "no-permission",
}
_DEPTH = 8
"""Errors that are looked at below one: each is the cause of the one above."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What a person, a script and a shell see of a failure."""

    code: str
    sentence: str

    def exit_code(self, verb: str | None) -> int:
        """Return the exit code of `verb`."""
        return OF_RUN if verb == "run" and self.code not in _RUNS_OWN else EXIT_CODES[self.code]

    def document(self) -> str:
        """Return the failure as one JSON document."""
        message, semicolon, hint = without_user(self.sentence).rpartition("; ")
        error = {"code": self.code, "message": message if semicolon else hint, "hint": hint if semicolon else None}
        return json.dumps({"version": VERSION, "error": error}, indent=2)


def failure_of(error: BaseException) -> Failure:
    """Return `error` as a failure."""
    if isinstance(error, UsageError):
        return Failure("invalid", str(error))
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "interrupted; no partial result left behind")
    if isinstance(error, MemoryError):
        return Failure("failed", "out of memory; raise the limit (ulimit -v) or use a machine with more memory")
    return Failure(_code(error), _sentence(error))


def internal(kind: type[BaseException], error: BaseException) -> Failure:
    """Return an error that is a bug, or a limit that Python has no class for, as a failure."""
    if str(error) == "can't start new thread":  # a RuntimeError, from any place that starts one
        return Failure("failed", "cannot start a thread; raise the limits on processes and memory (ulimit -u, -v)")
    sentence = f"internal error: {kind.__name__}: {error}; rerun with LAMELLA_DEBUG=1 and report the traceback"
    return Failure("internal", sentence)


def report(failure: Failure, *, as_json: bool) -> None:
    """Print `failure` to stderr, and with `as_json` to stdout too."""
    from lamella.layers.text import escaped

    if writes_records():
        from lamella.cli.logs import document

        print(document("error", "lamella.cli", failure.sentence, {"code": failure.code}), file=sys.stderr)
    else:
        print(f"lamella: {escaped(without_user(failure.sentence))}", file=sys.stderr)
    _write_termination_log(failure.sentence)
    if as_json:
        # A reader that has gone, or a full disk, must not hide the failure itself.
        with contextlib.suppress(OSError):
            print(failure.document(), flush=True)


def _write_termination_log(sentence: str) -> None:
    """Add the failure to the file that LAMELLA_TERMINATION_LOG names, for `kubectl describe pod`, if there is one.

    Kubernetes makes that file before the container starts, and removes a failed init container's own output with it.
    """
    from lamella.layers.text import escaped

    path = os.environ.get("LAMELLA_TERMINATION_LOG")
    if not path:
        return
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(file, "w", encoding="utf-8") as stream:
            stream.write(f"lamella: {escaped(without_user(sentence))}\n")


def _code(error: BaseException) -> str:
    from lamella.layers import CannotRun, LamellaError

    if isinstance(error, CannotRun):
        return "not-executable" if error.exit_code == 126 else "command-not-found"
    return (error.code if isinstance(error, LamellaError) else "") or _code_of_system(error)


def _code_of_system(error: BaseException | None) -> str:
    """Return the code of the system's error that `error` is, or stands for."""
    for _ in range(_DEPTH):
        if error is None:
            break
        if isinstance(error, OSError) and error.errno in _NUMBERS:
            return _NUMBERS[error.errno]
        error = error.__cause__ or error.__context__
    return "failed"


def _sentence(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and not error.filename and not _working_directory_exists():
        return "current directory no longer exists; cd to another one"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit (ulimit -n)"
    if isinstance(error, OSError) and not error.filename and _NUMBERS.get(error.errno or 0) == "no-space":
        # Of a stream: files are opened, and their errors translated, by layers and builder.
        return f"the output can't be written: {error.strerror}; free some, or write it elsewhere"
    if isinstance(error, OSError) and error.strerror:
        # Not translated by layers or builder: the system's message and the file.
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _working_directory_exists() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True
