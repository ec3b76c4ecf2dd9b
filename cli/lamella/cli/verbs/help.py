"""`lamella help`: show the help of a verb, or of the command."""

from __future__ import annotations

from argparse import SUPPRESS
from typing import TYPE_CHECKING, Any

from lamella.cli.errors import UsageError
from lamella.cli.habits import ALIASES, verb_hint
from lamella.cli.output import result_json
from lamella.cli.parsers import help_of, top_parser, verb_parser
from lamella.cli.suggestions import suggestion
from lamella.cli.verbs import VERBS

if TYPE_CHECKING:
    import argparse

    from lamella.cli.settings import Setting

SETTINGS: tuple[Setting, ...] = ()


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("of", nargs="?", metavar="VERB", help="verb to show (default: all, one line each)")


def run(arguments: argparse.Namespace) -> int:
    """Print the help."""
    verb = arguments.of
    if verb is not None and verb not in VERBS:
        verb = ALIASES.get(verb, verb)
    if verb is not None and verb not in VERBS:
        raise UsageError(f"help {verb}: unknown verb; {verb_hint(verb) or suggestion(verb, list(VERBS))}")
    if arguments.json:
        result_json({"verbs": [_document(name) for name in ([verb] if verb else VERBS)]})
    else:
        print((verb_parser(verb) if verb else top_parser()).format_help(), end="")
    return 0


def _document(verb: str) -> dict[str, Any]:
    """Return a verb's parser as JSON."""
    parser = verb_parser(verb)
    return {
        "name": verb,
        "summary": VERBS[verb].summary,
        "usage": parser.usage,
        "arguments": [
            {
                "names": action.option_strings or [action.metavar],
                "value": action.metavar if action.option_strings and action.nargs != 0 else None,
                "choices": list(action.choices) if action.choices else None,
                "help": help_of(action),
            }
            for action in parser._actions
            if action.help != SUPPRESS
        ],
        "examples": list(VERBS[verb].examples),
    }
