"""The reference page of the command line, from the parsers themselves: `python -m lamella.cli.reference`."""

from __future__ import annotations

import argparse

from lamella.cli.main import VERBS, module, parser_of
from lamella.cli.settings import EVERY, Setting

_HEAD = """\
# The command line

<!-- Written by `make docs` from the parsers; a test holds it. -->

Results go to standard output, everything else to standard error. Every verb takes `--json`, for the result as one JSON
document, and `-q`/`--quiet`, for neither progress nor remarks. A setting is taken from its flag, else from its
variable, else from its key (the flag without dashes) in the `[tool.lamella]` table of the nearest `pyproject.toml`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | not done: one sentence on standard error says why; or a check found something |
| 2 | the command line, a variable or `[tool.lamella]` asks for what can't be |
| 126, 127 | `run`: the command can't be executed, or there is none of that name; else its own exit code |
| 130, 143 | interrupted, terminated; nothing half-made is left behind |

`LAMELLA_DEBUG=1` shows the traceback of an error.
"""


def markdown() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_verb(name) for name in VERBS), _settings()])


def _verb(name: str) -> str:
    parser = _parser(name)
    actions = [action for action in parser._actions if action.dest not in {"help", "json", "quiet"}]
    settings = {setting.attribute: setting for setting in module(name).SETTINGS}
    positional = [action for action in actions if not action.option_strings]
    lines = [f"## lamella {name}", "", f"{VERBS[name].summary[0].upper()}{VERBS[name].summary[1:]}.", ""]
    lines += [f"    {parser.usage}", ""]
    lines += ["| argument | meaning |", "|---|---|"] if positional else []
    lines += [f"| `{action.metavar}` | {action.help} |" for action in positional]
    lines += [""] if positional else []
    options = [action for action in actions if action.option_strings]
    if options:
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| {_flag(action)} | {_meaning(action, settings)} |" for action in options] + [""]
    if parser.epilog:
        lines += [parser.epilog, ""]
    return "\n".join(lines)


def _parser(name: str) -> argparse.ArgumentParser:
    for action in parser_of(name)._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser: argparse.ArgumentParser = action.choices[name]
            return parser
    raise AssertionError(name)


def _flag(action: argparse.Action) -> str:
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    if action.choices:
        return f"{names} {', '.join(f'`{choice}`' for choice in action.choices)}"
    return f"{names} `{action.metavar}`" if action.metavar else names


def _meaning(action: argparse.Action, settings: dict[str, Setting]) -> str:
    setting = settings.get(action.dest)
    return f"{action.help}; `{setting.variable}`" if setting else str(action.help)


def _settings() -> str:
    lines = ["## Settings", "", "| key in `[tool.lamella]` | variable | meaning |", "|---|---|---|"]
    lines += [
        f"| `{setting.name}` | `{setting.variable}` | {setting.help} |"
        for setting in sorted(EVERY, key=lambda each: each.name)
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
