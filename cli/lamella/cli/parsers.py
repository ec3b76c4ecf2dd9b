"""The parsers of the command line: help that fits the terminal, and errors that name the next command.

Help, the reference page, manual pages and completion scripts all come from these parsers.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NoReturn

from lamella.cli.errors import UsageError
from lamella.cli.output import terminal_columns
from lamella.cli.suggestions import similar, suggestion
from lamella.cli.verbs import GROUPS, VERBS, module

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMON = ("--json", "-q", "--quiet", "-v", "--verbose")
"""Flags of every verb, which may also stand before it."""
WIDEST = 100
"""Columns of help on a wide terminal: longer lines are hard to read."""
DESCRIPTION = "Put your Python environment on every node that needs it, as OCI layers, one per package."
EPILOG = (
    "Run `lamella help VERB` for a verb's options. Settings come from flags, then LAMELLA_* variables, then "
    "[tool.lamella] in pyproject.toml, then ~/.config/lamella/config.toml, then /etc/lamella/config.toml."
)
EXAMPLES = (
    "lamella scan",
    "lamella push localhost:5000/team/envs:v1",
    "lamella run localhost:5000/team/envs:v1 -- python job.py",
    "lamella mount localhost:5000/team/envs:v1 /opt/env",
    "lamella help push",
)


class Formatter(argparse.HelpFormatter):
    """Fit help to the terminal: at most `WIDEST` columns, and flags above their help if it is narrow.

    Indented lines of a description or epilog are commands: they stay as they are.
    """

    HELP_FROM = 26
    """The column of the help."""
    NARROW = 72
    """Columns of a terminal below which help starts on a line of its own."""

    def __init__(self, prog: str) -> None:
        columns = min(terminal_columns(), WIDEST)
        position = self.HELP_FROM if columns >= self.NARROW else 6
        super().__init__(prog, max_help_position=position, width=max(columns - 1, 18))

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = [
            f"{indent}{line}" if line.startswith(" ") else super(Formatter, self)._fill_text(line, width, indent)
            for line in text.splitlines()
        ]
        return "\n".join(lines)


class _TopFormatter(Formatter):
    """For the verbs, whose names are shorter than flags."""

    HELP_FROM = 14
    NARROW = 40


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError`. No value of an unknown flag is in a message: it may be a password."""

    def __init__(self, prog: str, description: str) -> None:
        # Abbreviations would change their meaning with each new flag: --password would be --password-stdin.
        super().__init__(prog, description=description, formatter_class=Formatter, allow_abbrev=False)
        self.exit_on_error = False
        self._positionals.title = "arguments"

    def checked(self, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
        """Parse `words`; return the arguments and the words that the parser does not know. Raises `UsageError`."""
        try:
            # Intermixed: otherwise an option between REFERENCE and PREFIX ends the positional arguments before 3.13.
            return self.parse_known_intermixed_args(words)
        except argparse.ArgumentError as error:
            raise UsageError(self._sentence(error)) from None

    def error(self, message: str) -> NoReturn:
        """Raise `UsageError`. argparse calls this only for missing arguments, which `message` lists at its end."""
        raise UsageError(f"{self._verb}missing {message.rpartition(': ')[2]}; usage: {self.usage}")

    def flags(self) -> list[str]:
        """Return every flag."""
        return [flag for action in self._actions for flag in action.option_strings]

    @property
    def _verb(self) -> str:
        verb = self.prog.partition(" ")[2]
        return f"{verb}: " if verb else ""

    def _sentence(self, error: argparse.ArgumentError) -> str:
        name = str(error.argument_name or "").rpartition("/")[2]
        action = next((each for each in self._actions if name and name in (*each.option_strings, each.metavar)), None)
        if action is None:
            self.error(error.message)
        if action.nargs == 0:
            return f"{name}: takes no value; use {name} alone"
        if action.option_strings:
            metavar = action.metavar or "|".join(map(str, action.choices or ())) or "VALUE"
            return f"{name}: missing value; use {name} {metavar}"
        return f"{name}: {error.message}; usage: {self.usage}"

    def _get_value(self, action: argparse.Action, arg_string: str) -> object:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            flag = action.option_strings[-1] if action.option_strings else str(action.metavar)
            stated = error.__context__
            kinds = {int: "a whole number", float: "a number"}
            problem = (
                str(stated)
                if isinstance(stated, argparse.ArgumentTypeError)
                else f"not {kinds.get(action.type, 'valid')}; use {flag} {action.metavar}"  # type: ignore[call-overload] # any type
            )
            raise UsageError(f"{flag} {_shown(arg_string)}: {problem}") from None

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # Not argparse's: its sentence differs between versions, and it suggests nothing.
        if action.choices is not None and value not in action.choices:
            names = [str(choice) for choice in action.choices]
            where = action.option_strings[-1] if action.option_strings else str(action.metavar)
            raise UsageError(f"{where} {_shown(str(value))}: invalid choice; {suggestion(str(value), names)}")


def top_parser() -> Parser:
    """Return the parser of `lamella` itself, with the verbs' summaries and none of their arguments."""
    parser = _Top("lamella", DESCRIPTION)
    parser.formatter_class = _TopFormatter
    parser.usage = "lamella [options] VERB ..."
    parser.add_argument("-V", "--version", action="store_true", help="show the version and exit")
    parser.epilog = "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES), "", EPILOG])
    return parser


class _Top(Parser):
    """The parser of `lamella`, whose help has the verbs in groups."""

    def format_help(self) -> str:
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        for group, title in GROUPS.items():
            verbs = [(name, verb) for name, verb in VERBS.items() if verb.group == group]
            formatter.start_section(title)
            formatter.add_arguments([argparse.Action([], "verb", metavar=n, help=v.summary) for n, v in verbs])
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self._actions)
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()


def verb_parser(verb: str) -> Parser:
    """Return the parser of a verb's arguments."""
    parser = Parser(f"lamella {verb}", sentence(VERBS[verb].summary))
    module(verb).configure(parser)
    common = parser.add_argument_group("of every verb")
    common.add_argument("--json", action="store_true", help="print the result as one JSON document")
    common.add_argument("-q", "--quiet", action="store_true", help="show neither progress nor remarks")
    common.add_argument("-v", "--verbose", action="store_true", help="show requests and decisions")
    parser.usage = parser.usage or _usage(verb, parser)
    if examples := VERBS[verb].examples:
        shown = "\n".join(["examples:", *(f"  {example}" for example in examples)])
        parser.epilog = f"{parser.epilog}\n\n{shown}" if parser.epilog else shown
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser of `lamella` with every verb's parser below it, for completion scripts and manual pages."""
    parser = top_parser()
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", prog="lamella")
    for name, verb in VERBS.items():
        # Not add_parser, which makes a parser of its own.
        verbs._choices_actions.append(argparse.Action([], name, help=verb.summary))
        verbs._name_parser_map[name] = verb_parser(name)
    return parser


def help_of(action: argparse.Action) -> str:
    """Return the help of an option or argument as argparse prints it: a %% is a percent sign."""
    return str(action.help) % ()


def sentence(summary: str) -> str:
    """Return a summary as a sentence."""
    return f"{summary[0].upper()}{summary[1:]}."


def _usage(verb: str, parser: argparse.ArgumentParser) -> str:
    # argparse would list every option here, and again below with its help.
    words = [
        f"[{each.metavar}]" if each.nargs == "?" else str(each.metavar)
        for each in parser._actions
        if not each.option_strings
    ]
    return " ".join(["lamella", verb, "[options]", *words])


def parsed(verb: str, argv: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of a verb. Raises `UsageError`."""
    words, command = _split_command(argv) if verb == "run" else (argv, [])
    parser = verb_parser(verb)
    words = _apart(parser, words)
    arguments, unknown = parser.checked(words)
    if unknown:
        raise UsageError(_unknown(verb, parser, arguments, unknown, argv))
    for action in parser._actions:
        # "$UNSET" in a script: not the store in place of a reference, nor this folder in place of another.
        if not action.option_strings and action.default != "" == getattr(arguments, action.dest, None):
            raise UsageError(f"{verb}: empty {action.metavar}; usage: {parser.usage}")
    if modes := getattr(module(verb), "MODES", ()):
        from lamella.cli.modes import check

        check(parser, modes, arguments, words)
    arguments.command = command
    return arguments


def _apart(parser: Parser, words: Sequence[str]) -> Sequence[str]:
    """Return `words` with a reference or path apart from an option before it whose value can be left out, as of `--files`.

    argparse would take it as the value, which is a package: no package's name has a slash or begins with a dot.
    """
    flags = {flag for action in parser._actions if action.nargs == "?" for flag in action.option_strings}
    apart = list(words)
    for at, after in enumerate(words[1:]):
        if words[at] in flags and ("/" in after or after.startswith((".", "oci:"))):
            apart[at] += "="
    return apart


def _unknown(
    verb: str, parser: Parser, arguments: argparse.Namespace, unknown: Sequence[str], argv: Sequence[str]
) -> str:
    """Return the message for words that the parser does not know."""
    from lamella.cli.habits import flag_hint

    flag = unknown[0].partition("=")[0] if unknown[0].startswith("-") else ""
    if flag and not flag.startswith("--"):
        flag = flag[:2]  # -ps3cret: a flag and its value
    hint = flag_hint(verb, flag) if flag else ""
    if verb == "export" and hint:
        from lamella.cli.conda_pack import export_line

        line = export_line(argv)
        hint = f"use {line}" if line else hint
    if verb == "run" and arguments.verbose and arguments.reference.startswith(("/", "./", "../", "~")):
        # docker run -v FOLDER:FOLDER REFERENCE. The value is not repeated: the right command line lacks it.
        return "run -v: shows requests and takes no folders; leave it out: the command sees this machine's folders"
    if verb == "run" and not flag and "--" not in argv:
        # The command's own arguments are not repeated: they may hold a password.
        more = " ..." if unknown[1:] else ""
        return (
            f"run: missing -- before the command; use lamella run {arguments.reference} -- {_shown(unknown[0])}{more}"
        )
    if not flag and verb == "inject":
        return f"inject {unknown[0]}: too many arguments; name the environment with --env REFERENCE, and one FILE"
    if not flag and getattr(arguments, "files", None) == "":
        return f"{verb}: too many arguments; name a package directly behind --files: --files {_shown(unknown[0])}"
    if not flag:
        many = "too many arguments" if verb != "run" else "unknown argument before --"
        return f"{verb}: {many}; usage: {parser.usage}"
    return f"{verb} {flag}: unknown option; {hint or _meant(verb, flag, parser)}"


def _meant(verb: str, flag: str, parser: Parser) -> str:
    if flag.startswith("--"):
        if having := [name for name in VERBS if name != verb and flag in verb_parser(name).flags()]:
            names = " and ".join(filter(None, (", ".join(having[:-1]), having[-1])))
            return f"it is an option of {names}; see lamella {verb} --help"
        if meant := similar(flag, parser.flags()):
            return f"did you mean {meant}?"
    return f"see lamella {verb} --help"


def _split_command(argv: Sequence[str]) -> tuple[Sequence[str], list[str]]:
    # argparse's treatment of -- differs between Python versions, and it would take the command's own options.
    if "--" not in argv:
        return argv, []
    at = argv.index("--")
    return argv[:at], list(argv[at + 1 :])


def _shown(value: str) -> str:
    from shlex import quote

    return quote(value)
