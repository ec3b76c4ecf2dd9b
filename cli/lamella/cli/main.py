"""The `lamella` command: parse the command line, fill in settings, run the verb, print errors.

Only the module of the verb that runs is imported, so that every start loads only what it uses.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType

    from lamella.cli.settings import Setting

FAILED = 1
USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM
# The number is spelled out: Windows has no SIGPIPE.
PIPE_CLOSED = 128 + 13


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb as `lamella --help` shows it, without importing its module."""

    summary: str
    needs_linux: bool = True


VERBS = {
    "scan": Verb("show an environment: packages, origins, sizes, findings", needs_linux=False),
    "push": Verb("build and upload the layers that the registry lacks, and tag them"),
    "pull": Verb("download and unpack the layers that the store lacks"),
    "run": Verb("run one command in an environment, without privileges"),
    "mount": Verb("mount an environment at a folder, until umount"),
    "umount": Verb("unmount an environment"),
    "export": Verb("write an ordinary copy for machines without Lamella"),
    "inspect": Verb("show the packages and layers of a reference", needs_linux=False),
    "diff": Verb("compare two environments, and count the bytes to move", needs_linux=False),
    "tags": Verb("list the tags of environments in a repository or OCI layout folder", needs_linux=False),
    "copy": Verb("copy an environment between registries and folders", needs_linux=False),
    "attach": Verb("attach files to an environment, as an OCI artifact", needs_linux=False),
    "artifacts": Verb("list the artifacts attached to an environment", needs_linux=False),
    "fetch": Verb("write attached files into a folder", needs_linux=False),
    "verify": Verb("check the store, or a reference in a registry or folder, against its digests", needs_linux=False),
    "gc": Verb("free space in the store; keep mounted layers"),
    "login": Verb("save credentials for a registry, as Docker's clients do", needs_linux=False),
    "logout": Verb("remove the credentials for a registry", needs_linux=False),
}


class VerbModule(Protocol):
    """Interface of the modules in `lamella.cli.verbs`."""

    SETTINGS: tuple[Setting, ...]

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the verb and return the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    if argv is None:
        argv = sys.argv[1:]
        if not os.environ.get("LAMELLA_DEBUG"):
            sys.excepthook = _bug
        signal.signal(signal.SIGTERM, _terminated)
        _print_any_name()
    try:
        code = _run(list(argv))
        sys.stdout.flush()
    except SystemExit:
        raise  # Help, a usage error or a signal: skip the imports of the error classes below.
    except KeyboardInterrupt:
        _complain("interrupted; no partial result left behind")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader closed the pipe (`lamella scan | head`); Python must not flush to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MemoryError:
        _complain("out of memory; raise the limit (ulimit -v) or use a machine with more memory")
        return FAILED
    except _expected() as error:
        if os.environ.get("LAMELLA_DEBUG"):
            raise
        _complain(_sentence(error))
        # As shells do: 126 or 127 for a command that can't be run.
        return getattr(error, "exit_code", FAILED)
    return code


class _VerbsFormatter(argparse.HelpFormatter):
    """Leave room for the longest verb: argparse does not count that verbs are indented."""

    def add_argument(self, action: argparse.Action) -> None:
        """Add an argument, or the verbs."""
        super().add_argument(action)
        if action.dest == "verb":
            self._action_max_length += self._indent_increment


def top_parser() -> argparse.ArgumentParser:
    """Return the parser of `lamella` itself, with the verbs' summaries and none of their arguments."""
    parser = argparse.ArgumentParser(
        prog="lamella",
        description="Put your Python environment on every node that needs it, as OCI layers, one per package.",
        epilog="Run `lamella VERB --help` for a verb's options. Settings come from flags, then LAMELLA_* variables, "
        "then [tool.lamella] in pyproject.toml, then ~/.config/lamella/config.toml, then /etc/lamella/config.toml.",
        formatter_class=_VerbsFormatter,
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", prog="lamella")
    for name, verb in VERBS.items():
        verbs.add_parser(name, help=verb.summary)
    return parser


def verb_parser(verb: str) -> argparse.ArgumentParser:
    """Return the parser of a verb's arguments."""
    summary = VERBS[verb].summary
    parser = argparse.ArgumentParser(prog=f"lamella {verb}", description=f"{summary[0].upper()}{summary[1:]}.")
    module(verb).configure(parser)
    parser.add_argument("--json", action="store_true", help="print the result as one JSON document")
    parser.add_argument("-q", "--quiet", action="store_true", help="show neither progress nor remarks")
    parser.usage = parser.usage or _usage(verb, parser)
    return parser


def _usage(verb: str, parser: argparse.ArgumentParser) -> str:
    # argparse would list every option here, and again below with its help.
    words = [
        f"[{each.metavar}]" if each.nargs == "?" else str(each.metavar)
        for each in parser._actions
        if not each.option_strings
    ]
    return " ".join(["lamella", verb, "[options]", *words])


def module(verb: str) -> VerbModule:
    """Import the module of `verb`."""
    found: VerbModule = importlib.import_module(f"lamella.cli.verbs.{verb}")
    return found


def _run(argv: list[str]) -> int:
    verb = argv[0] if argv and argv[0] in VERBS else None
    if verb is None:
        return _without_verb(argv)
    from lamella.cli.errors import UsageError
    from lamella.cli.settings import fill

    try:
        arguments = _parsed(verb, argv[1:])
        if VERBS[verb].needs_linux:
            require_linux(verb)
        fill(arguments, module(verb).SETTINGS)
        return module(verb).run(arguments)
    except UsageError as error:
        _complain(str(error))
        return USAGE


def _without_verb(argv: list[str]) -> int:
    if argv and not argv[0].startswith("-"):
        from difflib import get_close_matches

        similar = get_close_matches(argv[0], VERBS, n=1)
        _complain(f"{argv[0]}: unknown verb; {f'did you mean {similar[0]}?' if similar else 'see lamella --help'}")
        return USAGE
    parser = top_parser()
    if parser.parse_args(argv).version:
        from lamella.layers import __version__

        print(f"lamella {__version__}")
        return 0
    parser.print_help(sys.stderr)
    return USAGE


def _parsed(verb: str, argv: list[str]) -> argparse.Namespace:
    from lamella.cli.errors import UsageError

    words, command = _split_command(argv) if verb == "run" else (argv, [])
    parser = verb_parser(verb)
    # Intermixed: otherwise an option between REFERENCE and PREFIX ends the positional arguments before Python 3.13.
    arguments, unknown = parser.parse_known_intermixed_args(words)
    if verb == "run" and any(not word.startswith("-") for word in unknown) and "--" not in argv:
        import shlex

        corrected = f"lamella run {arguments.reference} -- {shlex.join(unknown)}"
        raise UsageError(f"run: missing -- before the command; use {corrected}")
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.command = command
    return arguments


def require_linux(verb: str) -> None:
    """Raise `Unsupported` on other systems."""
    if sys.platform != "linux":
        from lamella.layers import Unsupported

        here = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        raise Unsupported(f"{verb}: not available on {here}; run it in a Linux container or virtual machine")


def _split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    # argparse's treatment of -- differs between Python versions, and it would take the command's own options.
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _expected() -> tuple[type[BaseException], ...]:
    # Called only after an exception, so that a start does not import these.
    from lamella.layers import LamellaError

    return (LamellaError, OSError)


def _sentence(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and not error.filename and not _working_directory_exists():
        return "current directory no longer exists; cd to another one"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many open files; raise the limit (ulimit -n)"
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


def _complain(sentence: str) -> None:
    from lamella.layers.text import escaped

    print(f"lamella: {escaped(sentence)}", file=sys.stderr)


def _bug(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    _complain(f"internal error: {kind.__name__}: {error}; rerun with LAMELLA_DEBUG=1 and report the traceback")


def _terminated(_number: int, _frame: FrameType | None) -> None:
    # An exception, so that locks, leases and partial files are cleaned up on the way out.
    raise SystemExit(TERMINATED)


def _print_any_name() -> None:
    # File names may hold bytes that are invalid in the encoding of stdout; a listing must not fail on them.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
