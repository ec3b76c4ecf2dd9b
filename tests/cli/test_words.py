"""A command line without options has the arguments that the parser would give it, without one."""

from __future__ import annotations

from typing import Any

import pytest

from lamella.cli.errors import UsageError
from lamella.cli.parsers import parsed
from lamella.cli.verbs import VERBS
from lamella.cli.words import plain_arguments


def by_parser(verb: str, words: list[str]) -> dict[str, Any] | None:
    """Return the arguments that the verb's parser finds; None for a command line that it refuses."""
    try:
        return vars(parsed(verb, words))
    except UsageError:
        return None


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["a"],
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "b", "c", "d"],
        ["-q", "a"],
        ["a", "--json", "-v"],
        ["a", "--", "-x"],
    ],
    ids=" ".join,
)
def test_arguments_without_a_parser_are_those_of_the_parser(verb: str, words: list[str]) -> None:
    plain = plain_arguments(verb, words)
    # A verb that is not as simple, or a line that is invalid, is left to the parser.
    assert plain is None or vars(plain) == by_parser(verb, words)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", ["a", "--", "true", "-x"]),
        ("run", ["-q", "a", "--", "true"]),
        ("pull", ["a"]),
        ("mount", ["a", "b"]),
        ("umount", ["a"]),
        ("ls", []),
        ("scan", []),
        ("push", ["a", "b"]),
        ("inspect", ["a", "--json"]),
    ],
)
def test_a_usual_line_needs_no_parser(verb: str, words: list[str]) -> None:
    assert plain_arguments(verb, words)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", ["a", "--dry-run", "--", "true"]),
        ("run", []),
        ("run", ["a", "b", "--", "true"]),
        ("pull", ["a", "--store", "b"]),
        ("pull", ["-"]),
        ("attach", ["a", "b"]),
        ("ls", ["--", "a"]),
        ("ls", ["--help"]),
    ],
)
def test_options_and_invalid_lines_are_left_to_the_parser(verb: str, words: list[str]) -> None:
    assert plain_arguments(verb, words) is None
