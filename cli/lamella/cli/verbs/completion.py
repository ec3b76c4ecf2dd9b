"""`lamella completion`: print a script that completes lamella's command line in a shell."""

from __future__ import annotations

import argparse

from lamella.cli.output import result, result_json
from lamella.cli.settings import STORE, add_settings

SETTINGS = (STORE,)
SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    # What the scripts call.
    parser.add_argument("--candidates", nargs=2, metavar=("KIND", "WORD"), help=argparse.SUPPRESS)
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    if arguments.candidates:
        from lamella.cli.candidates import candidates

        kind, word = arguments.candidates
        for found in candidates(kind, word, arguments.store):
            result(found)
        return 0
    from lamella.cli.completion import script

    text = script(arguments.shell)
    if arguments.json:
        result_json({"shell": arguments.shell, "script": text})
    else:
        print(text)
    return 0
