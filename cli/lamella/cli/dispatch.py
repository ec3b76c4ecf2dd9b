"""Find the verb of a command line, fill in its settings and run it.

Only the module of the verb that runs is imported, so that every start loads only what it uses.
"""

from __future__ import annotations

import os
import sys

from lamella.cli.output import LOG
from lamella.cli.parsers import COMMON, parsed
from lamella.cli.settings import check_variables, fill
from lamella.cli.verbs import VERBS, module, require_linux

INVALID = 2


def run_line(argv: list[str]) -> int:
    """Run the command line `argv` and return the exit code. Raises `UsageError` and what the verb raises."""
    verb, words = split(argv)
    if verb is None:
        return _without_verb(words)
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


def split(argv: list[str]) -> tuple[str | None, list[str]]:
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
        raise UsageError(_unknown_verb(argv))
    arguments, unknown = parser.checked(argv)
    if unknown:
        raise UsageError(_unknown_flag(argv, unknown))
    if arguments.version:
        from lamella.layers import __version__

        print(f"lamella {__version__}")
        return 0
    raise AssertionError(argv)


def _unknown_verb(argv: list[str]) -> str:
    from lamella.cli.conda_pack import export_line
    from lamella.cli.habits import verb_hint
    from lamella.cli.suggestions import similar

    word = argv[0]
    if word in {"pack", "conda-pack"} and (line := export_line(argv[1:])):
        return f"{word}: unknown verb; use {line}"
    if hint := verb_hint(word):
        return f"{word}: unknown verb; {hint}"
    meant = similar(word, VERBS)
    return f"{word}: unknown verb; {f'did you mean {meant}?' if meant else 'see lamella --help'}"


def _unknown_flag(argv: list[str], unknown: list[str]) -> str:
    from lamella.cli.conda_pack import export_line

    flag = unknown[0].partition("=")[0]
    line = export_line(argv)
    hint = f"use {line}" if line else "missing VERB before it; see lamella --help"
    return f"{flag if flag.startswith('--') else flag[:2]}: unknown option; {hint}"
