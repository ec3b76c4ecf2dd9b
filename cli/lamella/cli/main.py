"""The `lamella` command: parse the command line, fill in settings, run the verb, print errors.

Only the module of the verb that runs is imported, so that every start loads only what it uses.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import TYPE_CHECKING

from lamella.cli.output import LOG
from lamella.cli.verbs import VERBS, module, require_linux
from lamella.cli.words import COMMON, plain_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType

INVALID = 2
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
        code = _verb(list(argv))
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


def _verb(argv: list[str]) -> int:
    from lamella.cli.settings import check_variables, fill

    verb, words = _split(argv)
    if verb is None:
        return _without_verb(words)
    arguments = plain_arguments(verb, words)
    if arguments is None:
        from lamella.cli.parsers import parsed

        arguments = parsed(verb, words)
    if VERBS[verb].needs_linux:
        require_linux(verb)
    _start_records(verbose=arguments.verbose)
    check_variables(quiet=arguments.quiet)
    fill(arguments, module(verb).SETTINGS)
    return module(verb).run(arguments)


def _start_records(*, verbose: bool) -> None:
    asked = os.environ.get(LOG, "")
    if asked not in {"", "text", "json"}:
        from lamella.cli.errors import UsageError

        raise UsageError(f"{LOG} {asked}: invalid choice; use text or json")
    if verbose or asked:
        from lamella.cli.logs import start

        start(as_json=asked == "json")


def _split(argv: list[str]) -> tuple[str | None, list[str]]:
    """Return the verb, if there is a known one, and the words before and behind it."""
    at = next((at for at, word in enumerate(argv) if word not in COMMON), len(argv))
    word = argv[at] if at < len(argv) else ""
    if word not in VERBS and not word.startswith("-"):
        from lamella.cli.habits import ALIASES

        word = ALIASES.get(word, word)
    if word not in VERBS:
        return None, argv[at:]
    # Behind the words of the command line: argv[:at] are flags without values.
    return word, [*argv[:at], *argv[at + 1 :]]


def _without_verb(argv: list[str]) -> int:
    from lamella.cli.errors import UsageError
    from lamella.cli.parsers import top_parser

    parser = top_parser()
    if not argv:
        parser.print_help(sys.stderr)
        return INVALID
    if not argv[0].startswith("-"):
        raise UsageError(_unknown_verb(argv[0]))
    arguments, unknown = parser.checked(argv)
    if unknown:
        raise UsageError(_unknown_flag(argv, unknown))
    if arguments.version:
        from lamella.layers import __version__

        print(f"lamella {__version__}")
        return 0
    raise AssertionError(argv)


def _unknown_verb(word: str) -> str:
    from lamella.cli.habits import verb_hint
    from lamella.cli.suggestions import similar

    if hint := verb_hint(word):
        return f"{word}: unknown verb; {hint}"
    meant = similar(word, VERBS)
    return f"{word}: unknown verb; {f'did you mean {meant}?' if meant else 'see lamella --help'}"


def _unknown_flag(argv: list[str], unknown: list[str]) -> str:
    from lamella.cli.habits import top_hint

    flag = unknown[0].partition("=")[0]
    hint = top_hint(argv) or "missing VERB before it; see lamella --help"
    return f"{flag if flag.startswith('--') else flag[:2]}: unknown option; {hint}"


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


def _fail(error: BaseException, argv: Sequence[str]) -> int:
    from lamella.cli.failures import failure_of, report

    verb, words = _split(list(argv))
    failure = failure_of(error)
    if failure.code == "invalid" and verb:
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
