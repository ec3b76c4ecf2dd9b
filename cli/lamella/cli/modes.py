"""Modes of a verb, and the flags that have an effect in each: any other flag is refused, never ignored."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lamella.cli.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Collection, Sequence


class Mode(NamedTuple):
    """A way to run a verb."""

    name: str
    """The flag or the positional argument that chooses it; empty for the mode without any of the others'."""
    flags: frozenset[str]
    """Flags that have an effect in it, besides its own and those of every verb."""
    when: Callable[[argparse.Namespace], bool] | None = None
    """Whether positional arguments choose it; by default `name` decides."""

    def is_chosen(self, arguments: argparse.Namespace, given: Collection[str]) -> bool:
        """Whether the command line chooses this mode; `given` are its flags."""
        if self.when:
            return self.when(arguments)
        if self.name.startswith("-") or not self.name:
            return self.name in given or not self.name
        return bool(getattr(arguments, self.name.lower(), None))


def flags_of(*parts: str | Sequence[object]) -> frozenset[str]:
    """Return the flags in `parts`: words of a text, and the flags of settings."""
    return frozenset(
        flag
        for part in parts
        for flag in (part.split() if isinstance(part, str) else [f"--{getattr(each, 'name', each)}" for each in part])
    )


def check(
    parser: argparse.ArgumentParser, modes: Sequence[Mode], arguments: argparse.Namespace, words: Sequence[str]
) -> None:
    """Raise `UsageError` for a flag among `words` that has no effect in the mode that they choose, the first of `modes`."""
    given = given_flags(parser, words)
    active = next((mode for mode in modes if mode.is_chosen(arguments, given)), None)
    if active is None:
        return
    for flag in given:
        if flag == active.name or flag in active.flags or flag in COMMON:
            continue
        needed = [mode.name for mode in modes if mode is not active and (flag in mode.flags or flag == mode.name)]
        if active.name and ("" in needed or flag in needed):
            raise UsageError(f"{flag}: has no effect with {active.name}; leave one of them out")
        wanted = " or ".join(name for name in needed if name)
        where = f"with {active.name}, only with {wanted}" if active.name else f"without {wanted}"
        raise UsageError(f"{flag}: has no effect {where}; add {wanted}, or leave {flag} out")


COMMON = frozenset({"--json", "--quiet", "--verbose"})
"""Flags of every verb."""


def given_flags(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """Return the flags among `words`, each by its first long name."""
    names = {
        option: next((name for name in action.option_strings if name.startswith("--")), option)
        for action in parser._actions
        for option in action.option_strings
    }
    found = [names.get(word.partition("=")[0]) or names.get(word[:2]) for word in words if word.startswith("-")]
    return list(dict.fromkeys(flag for flag in found if flag))
