"""`lamella login`: save credentials for a registry in the file of Docker's clients."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lamella.cli.errors import UsageError
from lamella.cli.output import remark, result_json
from lamella.cli.settings import REGISTRY, add_settings, trust_of

if TYPE_CHECKING:
    import argparse

SETTINGS = REGISTRY


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments. The password has none: every process can read the command line."""
    parser.epilog = "The password is asked for on a terminal; otherwise it is read from standard input."
    parser.add_argument("registry", metavar="REGISTRY", help="host of the registry, such as ghcr.io or localhost:5000")
    parser.add_argument("-u", "--username", metavar="NAME", help="user name (default: asked for on a terminal)")
    parser.add_argument(
        "--password-stdin",
        action="store_true",
        help="read the password from standard input (default: only if that is not a terminal)",
    )
    add_settings(parser, SETTINGS)


def run(arguments: argparse.Namespace) -> int:
    """Check the credentials with the registry, and save them."""
    from lamella.layers import login, registry_name

    registry = registry_name(arguments.registry)
    username, password = _ask(arguments.username, from_stdin=arguments.password_stdin)
    kept = login(registry, username, password, trust=trust_of(arguments))
    if arguments.json:
        result_json({"registry": registry, "username": username, "kept": kept})
    else:
        remark(f"logged in to {registry} as {username}; credentials saved in {kept}", quiet=arguments.quiet)
    return 0


def _ask(username: str | None, *, from_stdin: bool) -> tuple[str, str]:
    if sys.stdin.isatty() and not from_stdin:
        import getpass

        # On stderr, as everything but results.
        if not username:
            print("Username: ", end="", file=sys.stderr, flush=True)
            username = sys.stdin.readline().strip()
        password = getpass.getpass("Password: ", stream=sys.stderr)
    else:
        password = sys.stdin.read().rstrip("\r\n")
    if not username:
        raise UsageError("login: missing user name; use --username NAME")
    if not password:
        raise UsageError("login: missing password; type it on a terminal, or pipe it to --password-stdin")
    return username, password
