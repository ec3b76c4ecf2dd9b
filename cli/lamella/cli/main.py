"""The `lamella` command: finds the verb, fills its settings, runs it, and says errors in one sentence.

No verb's module is imported until it is the one that was asked for, so that `lamella --help` and every verb start
with nothing that they do not use.
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
    """A verb as `lamella --help` shows it, before its module is imported."""

    summary: str
    needs_linux: bool = True


VERBS = {
    "scan": Verb("show the environment: packages, origin, size, findings", needs_linux=False),
    "push": Verb("build the layers that nobody has, upload what is missing, tag it"),
    "pull": Verb("download and unpack the layers that are missing here"),
    "run": Verb("run one command in the environment; needs no privilege"),
    "mount": Verb("put the environment at a folder, until umount"),
    "umount": Verb("take an environment away from a folder"),
    "export": Verb("write an ordinary copy, for machines without Lamella"),
    "inspect": Verb("show what a reference holds, package by package", needs_linux=False),
    "diff": Verb("show what differs between two environments, and what would move", needs_linux=False),
    "tags": Verb("list the tags of a repository or folder", needs_linux=False),
    "copy": Verb("copy an environment from one registry or folder to another", needs_linux=False),
    "verify": Verb("check the store's layers against their digests"),
    "gc": Verb("free space in the store, never from under a mount"),
    "login": Verb("keep a registry's credentials, as Docker's clients do", needs_linux=False),
    "logout": Verb("forget a registry's credentials", needs_linux=False),
}


class VerbModule(Protocol):
    """What every module in `lamella.cli.verbs` is."""

    SETTINGS: tuple[Setting, ...]

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Adds the verb's arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Does it; the exit code."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (the process's own by default) and returns its exit code."""
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
        raise  # Help, a usage error or a signal: no need to import what the errors below are.
    except KeyboardInterrupt:
        _complain("interrupted; nothing half-made is left behind")
        return INTERRUPTED
    except BrokenPipeError:
        # What reads has seen enough (`lamella scan | head`); Python must not try to flush to it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    except MemoryError:
        _complain("there is no memory left for it: raise the limit (ulimit -v), or use a machine that has more")
        return FAILED
    except _expected() as error:
        if os.environ.get("LAMELLA_DEBUG"):
            raise
        _complain(_sentence(error))
        # A command that can't be run has the exit code that shells give it.
        return getattr(error, "exit_code", FAILED)
    return code


def parser_of(verb: str | None = None) -> argparse.ArgumentParser:
    """The whole parser, with the arguments of `verb` alone: those of the others would import their modules."""
    parser = argparse.ArgumentParser(
        prog="lamella",
        description="The Python environment that you have, as OCI layers, one per package, on every node that needs it.",
        epilog="`lamella VERB --help` tells more. Settings: flags, then LAMELLA_* variables, then [tool.lamella] in "
        "pyproject.toml.",
    )
    parser.add_argument("--version", action="store_true", help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", prog="lamella")
    for name, about in VERBS.items():
        described = verbs.add_parser(
            name, help=about.summary, description=f"{about.summary[0].upper()}{about.summary[1:]}."
        )
        if name == verb:
            module(name).configure(described)
            described.add_argument("--json", action="store_true", help="print the result as one JSON document")
            described.usage = described.usage or _usage(name, described)
            described.add_argument("-q", "--quiet", action="store_true", help="no progress and no remarks")
    return parser


def _usage(verb: str, parser: argparse.ArgumentParser) -> str:
    # argparse would list every option here, and again below with what it means.
    words = [
        f"[{each.metavar}]" if each.nargs == "?" else str(each.metavar)
        for each in parser._actions
        if not each.option_strings
    ]
    return " ".join(["lamella", verb, "[options]", *words])


def module(verb: str) -> VerbModule:
    """The module of `verb`, imported."""
    found: VerbModule = importlib.import_module(f"lamella.cli.verbs.{verb}")
    return found


def _run(argv: list[str]) -> int:
    verb = next((word for word in argv if word in VERBS), None)
    words, command = _split_command(argv) if verb == "run" else (argv, [])
    parser = parser_of(verb)
    arguments, unknown = parser.parse_known_args(words)
    if verb == "run" and any(not word.startswith("-") for word in unknown) and "--" not in argv:
        import shlex

        _complain(f"run needs -- before its command: lamella run {arguments.reference} -- {shlex.join(unknown)}")
        return USAGE
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.version:
        from importlib.metadata import version

        print(f"lamella {version('lamella')}")
        return 0
    if verb is None:
        parser.print_help(sys.stderr)
        return USAGE
    arguments.command = command
    if VERBS[verb].needs_linux and sys.platform != "linux":
        from lamella.layers.errors import Unsupported

        here = {"darwin": "macOS", "win32": "Windows"}.get(sys.platform, sys.platform)
        raise Unsupported(f"{verb} needs Linux, and this is {here}: run it in a Linux container or virtual machine")
    from lamella.cli.settings import UsageError, fill

    try:
        fill(arguments, module(verb).SETTINGS)
        return module(verb).run(arguments)
    except UsageError as error:
        _complain(str(error))
        return USAGE


def _split_command(argv: list[str]) -> tuple[list[str], list[str]]:
    # argparse treats what follows -- differently from one Python to the next, and would take the command's own options.
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], argv[at + 1 :]


def _expected() -> tuple[type[BaseException], ...]:
    # Evaluated when something was raised, not before: a start pays nothing for it.
    from lamella.builder.errors import BuilderError
    from lamella.layers.errors import LayersError

    return (LayersError, BuilderError, OSError)


def _sentence(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError) and not error.filename and not _is_somewhere():
        return "the current folder was removed: change to one that is there (cd)"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "too many files are open: raise the limit (ulimit -n)"
    if isinstance(error, OSError) and error.strerror:
        # What neither package translated: the system's own words and the file that they are about.
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _is_somewhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _complain(sentence: str) -> None:
    from lamella.cli.output import printable

    print(f"lamella: {printable(sentence)}", file=sys.stderr)


def _bug(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    _complain(f"this is a bug in lamella: {kind.__name__}: {error}; set LAMELLA_DEBUG=1 to see where, and report it")


def _terminated(_number: int, _frame: FrameType | None) -> None:
    # Ends as an exception does, so that locks, leases and half-made files are cleaned up on the way out.
    raise SystemExit(TERMINATED)


def _print_any_name() -> None:
    # File names may hold bytes that no encoding has; a listing must not die of them.
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
