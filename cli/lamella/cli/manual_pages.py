"""The files that the wheel brings for `share/`: manual pages and completion scripts, from the parsers.

Used by the build of the wheel alone: the command itself does not depend on argparse-manpage.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from lamella.cli.completion import script
from lamella.cli.failures import EXIT_CODES, OF_RUN
from lamella.cli.parsers import DESCRIPTION, EPILOG, EXAMPLES, sentence, top_parser, verb_parser
from lamella.cli.verbs import GROUPS, VERBS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.cli.parsers import Parser
    from lamella.cli.verbs import Group


def files(version: str) -> dict[str, str]:
    """Return each file's text by its path below a prefix."""
    pages = {"lamella": page(top_parser(), DESCRIPTION, EXAMPLES, version)}
    for name, verb in VERBS.items():
        pages[f"lamella-{name}"] = page(verb_parser(name), verb.summary, verb.examples, version)
    return {f"share/man/man1/{name}.1": text for name, text in pages.items()} | {
        "share/bash-completion/completions/lamella": script("bash"),
        "share/zsh/site-functions/_lamella": script("zsh"),
        "share/fish/vendor_completions.d/lamella.fish": script("fish"),
    }


class _OneWidth(argparse.HelpFormatter):
    """Wraps text at the same width in every build, whatever its terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=80)


def page(parser: Parser, summary: str, examples: Sequence[str], version: str) -> str:
    """Return a manual page in roff."""
    from argparse_manpage.manpage import Manpage

    of_all = parser.prog == "lamella"
    parser.prog = parser.prog.replace(" ", "-")
    parser.epilog = None
    parser.formatter_class = _OneWidth
    # The version stands for the date, so that equal sources give equal wheels.
    data = {"project_name": "lamella", "version": version, "date": version, "manual_title": "Lamella"}
    made = Manpage(parser, data | {"description": summary[0].lower() + summary[1:].rstrip(".")})
    if of_all:
        made.add_section("verbs", "=", "\n".join(map(_group, GROUPS)))
        made.add_section("settings", "=", _text(EPILOG))
        made.add_section("exit status", "=", _exit_codes())
    made.add_section("examples", "=", "\n".join([".nf", *map(_text, examples), ".fi"]))
    others = [f"lamella-{verb}" for verb in VERBS] if of_all else ["lamella"]
    made.add_section("see also", "=", ",\n".join(f"\\fB{_text(name)}\\fR(1)" for name in others))
    return str(made)


def _group(group: Group) -> str:
    """Return a group of verbs as a subsection."""
    verbs = [(name, verb) for name, verb in VERBS.items() if verb.group == group]
    rows = [f".TP\n\\fB{name}\\fR\n{_text(sentence(verb.summary))}" for name, verb in verbs]
    return "\n".join([f".SS {_text(GROUPS[group])}", *rows])


def _exit_codes() -> str:
    codes = {number: code for code, number in EXIT_CODES.items() if code != "internal"}
    rows = [f".TP\n\\fB{number}\\fR\n{_text(code.replace('-', ' '))}" for number, code in sorted(codes.items())]
    rows.append(f".TP\n\\fB{OF_RUN}\\fR\nlamella run failed before its command started")
    return "\n".join([".TP\n\\fB0\\fR\nsuccess", *rows])


def _text(text: str) -> str:
    """Return `text` for roff: hyphens to copy, and no line that starts with a request."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
