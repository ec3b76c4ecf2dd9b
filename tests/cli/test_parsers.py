"""The parser's own messages, for kinds of arguments that no verb may have at the moment."""

from __future__ import annotations

import argparse

import pytest

from lamella.cli.errors import UsageError
from lamella.cli.main import main
from lamella.cli.parsers import Parser
from lamella.cli.reference import markdown
from lamella.cli.suggestions import similar, suggestion


def parser() -> Parser:
    def colour(text: str) -> str:
        raise argparse.ArgumentTypeError(f"not a colour; use red ({len(text)} letters given)")

    made = Parser("lamella paint", "Paint.")
    made.usage = "lamella paint [options] WALL"
    made.add_argument("wall", metavar="WALL")
    made.add_argument("--coats", metavar="N", type=int)
    made.add_argument("--litres", metavar="N", type=float)
    made.add_argument("--colour", metavar="NAME", type=colour)
    made.add_argument("-f", "--finish", choices=("matt", "gloss"))
    return made


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--coats", "many"], "--coats many: not a whole number; use --coats N"),
        (["x", "--litres", "a b"], "--litres 'a b': not a number; use --litres N"),
        (["x", "--colour", "loud"], "--colour loud: not a colour; use red (4 letters given)"),
        (["x", "--coats"], "--coats: missing value; use --coats N"),
        (["x", "-f", "mat"], "--finish mat: invalid choice; did you mean matt?"),
        (["x", "-f"], "--finish: missing value; use --finish matt|gloss"),
        ([], "paint: missing WALL; usage: lamella paint [options] WALL"),
    ],
)
def test_an_invalid_value_is_named_with_its_flag_and_the_right_form(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parser().checked(words)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("word", "meant"),
    [("pusg", "push"), ("PUSH", "push"), ("insp", "inspect"), ("xyzzy", ""), ("", "")],
)
def test_a_similar_name_is_found_whatever_its_case_or_its_end(word: str, meant: str) -> None:
    assert similar(word, ["push", "pull", "inspect"]) == meant


def test_without_a_similar_name_all_are_listed() -> None:
    assert suggestion("xyzzy", ["a1", "b2", "c3"]) == "use a1, b2 or c3"
    assert suggestion("xyzzy", ["a1"]) == "use a1"


def test_no_help_outside_argparse_shows_an_escaped_percent_sign(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "--json"]) == 0
    assert "10%; 0% for no limit" in capsys.readouterr().out
    assert "%%" not in markdown()
