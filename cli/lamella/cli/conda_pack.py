"""Command lines typed as for conda-pack: the line of `lamella export` that does the same.

Only imported for a command line that Lamella does not know.
"""

from __future__ import annotations

import argparse
import os
from shlex import quote
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LIST = "conda env list shows the prefix of each environment"


class _Unclear(Exception):
    """Words that are not a command line of conda-pack."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _Unclear(message)


def _with(flag: str) -> Callable[[str], tuple[str, str]]:
    return lambda value: (flag, value)


def _parser() -> _Parser:
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("-n", "--name")
    parser.add_argument("-p", "--prefix")
    parser.add_argument("-o", "--output", "-O", "--out")
    parser.add_argument("-d", "--dest-prefix")
    parser.add_argument("-j", "--n-threads", type=int)
    parser.add_argument("--format")
    same = ("--arcroot", "--parcel-root", "--compress-level", "--exclude", "--include", "--threads", "--local")
    for flag in same:
        parser.add_argument(flag, dest="same", action="append", type=_with(flag))
    for flag in ("-f", "--force", "-q", "--quiet", "-v", "--verbose", "--json", "--dry-run", "--no-byte-code"):
        parser.add_argument(flag, dest="same", action="append_const", const=(flag,))
    for flag in ("--zip-symlinks", "--no-zip-64", "--ignore-editable-packages", "--ignore-missing-files"):
        parser.add_argument(flag, dest="needless", action="store_true")
    return parser


def export_line(words: Sequence[str]) -> str:
    """Return the line of `lamella export` for `words`, which stand behind conda-pack or behind `export`.

    Empty if they hold other flags, or name neither an environment nor an output. A path is repeated, never a value that
    may be a password, as -p has it elsewhere.
    """
    try:
        typed, others = _parser().parse_known_args(list(words))
    except _Unclear:
        return ""
    if len(others) > 2 or any(other.startswith("-") for other in others):
        return ""
    prefix, options = typed.dest_prefix, []
    if others and not typed.output and len(others) < 2 and not os.path.isdir(others[0]):
        typed.output = others.pop()
    source, hint = _source(typed, others)
    if source and typed.prefix and others:
        prefix = typed.prefix if os.path.isabs(typed.prefix) else "PATH"
    if typed.format:
        options += ["--format", "dir" if typed.format == "no-archive" else typed.format]
    options += ["--prefix", prefix] if prefix else []
    options += ["--threads", str(typed.n_threads)] if (typed.n_threads or 0) > 0 else []
    options += [word for pair in typed.same or () for word in pair]
    path = typed.output or (others[1:] or [_file(typed.format)])[0]
    if not (source or typed.output):
        return ""
    line = " ".join(["lamella export", *map(quote, [*options, *filter(None, (source,)), path])])
    return f"{line}{hint and f'; {hint}'}"


def _source(typed: argparse.Namespace, others: Sequence[str]) -> tuple[str, str]:
    """Return the environment, empty for the active one, and how to find it if that is unknown."""
    if others:
        return others[0], ""
    if typed.prefix:
        return (typed.prefix if os.path.isdir(typed.prefix) else "PREFIX"), ""
    if typed.name:
        found = [path for path in _known_to_conda() if os.path.basename(path) == typed.name and os.path.isdir(path)]
        return (found[0], "") if len(found) == 1 else ("PREFIX", _LIST)
    return "", ""


def _known_to_conda() -> list[str]:
    """Return the prefixes that conda, mamba and pixi noted for this user."""
    from lamella.layers.settings.homes import expanded

    try:
        with open(expanded("~/.conda/environments.txt"), encoding="utf-8", errors="replace") as file:
            return file.read().split("\n")
    except OSError:
        return []


def _file(form: str | None) -> str:
    """Return an example of a file's name in a format."""
    return "env" if form in {"dir", "no-archive"} else f"env.{form or 'tar.gz'}"
