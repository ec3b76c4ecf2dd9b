"""`lamella login`: credentials for a registry, kept where Docker's clients keep them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lamella.cli.output import remark, result_json
from lamella.cli.settings import REGISTRY, UsageError, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = REGISTRY


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments: none for the password, since every process can read another's command line."""
    parser.epilog = "The password is asked for on a terminal and read from standard input elsewhere."
    parser.add_argument("registry", metavar="REGISTRY", help="such as ghcr.io or localhost:5000")
    parser.add_argument("-u", "--username", metavar="NAME", help="asked for on a terminal where it is missing")
    for setting in SETTINGS:
        setting.add_to(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tries the credentials and keeps them."""
    from lamella.layers.registry.login import login, registry_of

    registry = registry_of(arguments.registry)
    username, password = _ask(arguments.username)
    kept = login(registry, username, password, trust=trust_of(arguments))
    if arguments.json:
        result_json({"registry": registry, "username": username, "kept": kept})
    else:
        remark(f"{registry} takes {username}'s credentials; kept in {kept}", quiet=arguments.quiet)
    return 0


def _ask(username: str | None) -> tuple[str, str]:
    if sys.stdin.isatty():
        import getpass

        # On stderr, as all that is no result.
        if not username:
            print("Username: ", end="", file=sys.stderr, flush=True)
            username = sys.stdin.readline().strip()
        password = getpass.getpass("Password: ", stream=sys.stderr)
    else:
        password = sys.stdin.read().rstrip("\r\n")
    if not username:
        raise UsageError("login needs a user's name: --username NAME")
    if not password:
        raise UsageError("login needs a password: type it, or pipe it to standard input")
    return username, password
