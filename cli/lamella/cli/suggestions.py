"""Did you mean: the name that a wrong word was probably meant to be."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def suggestion(word: str, names: Sequence[str]) -> str:
    """Return the end of a message: the name that was probably meant, else all of them."""
    if meant := similar(word, names):
        return f"did you mean {meant}?"
    return f"use {', '.join(names[:-1])} or {names[-1]}" if names[1:] else f"use {names[0]}"


def same_package(name: str, other: str) -> bool:
    """Return whether two names are one package's: `Foo.Bar` is `foo-bar`. Source: PEP 503."""
    plain, others = (re.sub(r"[-_.]+", "-", each).lower() for each in (name, other))
    return plain == others


def similar(word: str, names: Iterable[str]) -> str:
    """Return the name that `word` was probably meant to be; empty if no name is similar."""
    from difflib import get_close_matches

    # Without the dashes, which are in every option and make all of them similar.
    candidates = {name.lower().lstrip("-"): name for name in names}
    wanted = word.lower().lstrip("-")
    close = get_close_matches(wanted, candidates, n=1)
    if not close and len(wanted) > 1:
        # An abbreviation, or a part: --dry for --dry-run.
        close = [name for name in candidates if name.startswith(wanted)][:1]
    return candidates[close[0]] if close else ""
