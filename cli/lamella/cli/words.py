"""The words of a command line, and its arguments if it has no options: then no parser is made.

Importing argparse and declaring a verb's options takes a tenth of `lamella run`. See docs/adr/a-start-loads-what-it-uses.md.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from lamella.cli.verbs import module

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_COMMON = {"--json": "json", "-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}
COMMON = tuple(_COMMON)
"""Flags of every verb, which may also stand before it."""


def split_command(verb: str, argv: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    """Return the words of `lamella run` and the command behind --; of another verb, all words and no command."""
    # argparse's treatment of -- differs between Python versions, and it would take the command's own options.
    if verb != "run" or "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], list(argv[at + 1 :])


def plain_arguments(verb: str, argv: Sequence[str]) -> argparse.Namespace | None:
    """Return the arguments of a valid command line without options, but for `COMMON`; None for any other one."""
    words, command = split_command(verb, argv)
    values = [word for word in words if word not in _COMMON]
    if any(word.startswith("-") for word in values):
        return None
    declared = _Declared()
    # It has the methods of a parser that declare arguments.
    module(verb).configure(cast("argparse.ArgumentParser", declared))
    if not declared.takes(len(values)):
        return None
    found = declared.defaults | dict(zip(declared.positional, values, strict=False))
    found |= dict.fromkeys(_COMMON.values(), False) | {_COMMON[word]: True for word in words if word in _COMMON}
    return cast("argparse.Namespace", SimpleNamespace(**found, command=command))


class _Declared:
    """Collects a verb's declarations of arguments, with the methods of `argparse.ArgumentParser`."""

    def __init__(self) -> None:
        self.defaults: dict[str, Any] = {}
        self.positional: list[str] = []
        self._required = 0
        self._is_plain = True

    def takes(self, count: int) -> bool:
        """Whether `count` words are valid: each is one positional argument, and only the last ones can be left out."""
        return self._is_plain and self._required <= count <= len(self.positional)

    def add_argument_group(self, *_: str) -> _Declared:
        """Groups are for the help."""
        return self

    def add_argument(self, *names: str, **options: Any) -> None:
        """Declare an option by its default, or a positional argument."""
        name = next((each for each in names if each.startswith("--")), names[0])
        action = options.get("action", "store")
        default = options.get("default", False if action == "store_true" else None)
        self.defaults[options.get("dest") or name.lstrip("-").replace("-", "_")] = default
        if names[0].startswith("-"):
            # A default that is a text would be converted, and a required option is missing.
            self._is_plain &= not options.get("required") and not (isinstance(default, str) and "type" in options)
            return
        is_required = options.get("nargs") is None
        in_order = not is_required or self._required == len(self.positional)
        self._is_plain &= (
            options.keys().isdisjoint({"type", "choices"}) and options.get("nargs") in (None, "?") and in_order
        )
        self._required += is_required
        self.positional.append(name)
