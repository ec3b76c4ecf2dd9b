"""A flag without an effect in the mode that a command line chooses is refused: every pair of a mode and a flag."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.cli.errors import UsageError
from lamella.cli.modes import COMMON
from lamella.cli.parsers import parsed, verb_parser
from lamella.cli.verbs import VERBS, module

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from lamella.cli.modes import Mode


def modes_of(verb: str) -> tuple[Mode, ...]:
    return getattr(module(verb), "MODES", ())


WITH_MODES = [verb for verb in VERBS if modes_of(verb)]
POSITIONAL = {
    "mount": ["a/b:v1"],
    "run": ["a/b:v1"],
    "push": ["a/b:v1"],
    "pull": ["a/b:v1"],
    "inspect": ["a/b:v1"],
    "untag": ["a/b:v1"],
    "diff": ["a/b:v1", "a/b:v2"],
    "export": ["a/b:v1", "out"],
    "inject": ["pod.yaml"],
}
BY_POSITION = {"REFERENCE": ["a/b:v1"], "oci:FOLDER": ["oci:layout"], "a folder as SOURCE": ["out"]}


def words_of(action: argparse.Action) -> list[str]:
    """A flag with a value that its parser takes."""
    flag = action.option_strings[-1]
    if action.nargs in (0, "?"):
        return [flag]
    return [flag, str(next(iter(action.choices))) if action.choices else "1"]


def flags(verb: str) -> dict[str, argparse.Action]:
    found: dict[str, argparse.Action] = {}
    for action in verb_parser(verb)._actions:
        name = next((each for each in action.option_strings if each.startswith("--")), "")
        if name and name not in (*COMMON, "--help"):
            found[name] = action
    return found


def command(verb: str, mode: Mode) -> list[str]:
    """Words that choose a mode."""
    positional = BY_POSITION.get(mode.name, POSITIONAL.get(verb, []))
    return [*positional, *(words_of(flags(verb)[mode.name]) if mode.name.startswith("-") else [])]


@pytest.mark.parametrize("verb", WITH_MODES)
def test_every_flag_has_an_effect_in_a_mode(verb: str) -> None:
    modes = modes_of(verb)
    known = {flag for mode in modes for flag in (*mode.flags, mode.name)} - {""}

    assert {name for name in known if name.startswith("--")} == set(flags(verb))


@pytest.mark.parametrize("verb", WITH_MODES)
def test_every_flag_is_taken_or_refused_in_every_mode(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modes = modes_of(verb)
    for index, mode in enumerate(modes):
        for flag, action in flags(verb).items():
            if flag in [each.name for each in modes[:index]] or flag == mode.name:
                continue  # it chooses another mode, which is tested there
            words = [*command(verb, mode), *words_of(action)]
            if flag in mode.flags:
                parsed(verb, words)
                continue
            with pytest.raises(UsageError) as raised:
                parsed(verb, words)
            needed = [each.name for each in modes if flag in (*each.flags, each.name) and each.name]
            message = str(raised.value)
            assert message.startswith(f"{flag}: has no effect with"), words
            assert mode.name in message or any(name in message for name in needed), words


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "mount a/b:v1 env --interval 1",
            "--interval: has no effect without --follow; add --follow, or leave --interval out",
        ),
        (
            "mount a/b:v1 env --timeout=5",
            "--timeout: has no effect without --agent; add --agent, or leave --timeout out",
        ),
        ("mount a/b:v1 env --follow --elsewhere", "--elsewhere: has no effect with --follow; leave one of them out"),
        (
            "mount a/b:v1 --agent s --interval 1",
            "--interval: has no effect with --agent, only with --follow; add --follow, or leave --interval out",
        ),
        ("mount a/b:v1 --agent s --follow", "--follow: has no effect with --agent; leave one of them out"),
        ("run a/b:v1 --signal HUP", "--signal: has no effect without --follow; add --follow, or leave --signal out"),
        ("push a/b:v1 --watch --dry-run", "--dry-run: has no effect with --watch; leave one of them out"),
        ("untag a/b:v1 --other-tags", "--other-tags: has no effect without --manifest; add --manifest, or"),
        ("export a/b:v1 --to-docker --dry-run", "--dry-run: has no effect with --to-docker; leave one of them out"),
        (
            "export a/b:v1 out --ignore x",
            "--ignore: has no effect without a folder as SOURCE; add a folder as SOURCE, or",
        ),
        ("verify --deep", "--deep: has no effect without REFERENCE; add REFERENCE, or leave --deep out"),
        (
            "inject pod.yaml --remove -i --method host",
            "--method: has no effect with --remove, only with --env; add --env",
        ),
    ],
)
def test_the_message_names_the_flag_that_is_missing(line: str, message: str) -> None:
    verb, *words = line.split()
    with pytest.raises(UsageError) as raised:
        parsed(verb, words)
    assert str(raised.value).startswith(message)


def test_a_setting_of_a_variable_is_not_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_ELSEWHERE", "true")
    assert parsed("mount", ["a/b:v1", "env", "--follow"]).elsewhere is None
