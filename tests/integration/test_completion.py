"""Completion in real shells, typed at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.cli.completion import script
from support.engines import need
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.engine

TYPED = [
    ("lamella pus", "lamella push "),
    ("lamella push --compression z", "lamella push --compression zstd "),
    ("lamella push --compression=z", "lamella push --compression=zstd "),
    ("lamella pull --platform=linux/amd64 x --store=im", "lamella pull --platform=linux/amd64 x --store=images"),
    ("lamella inspect --platform=linux/amd64 oci:im", "lamella inspect --platform=linux/amd64 oci:images:latest"),
    ("lamella help ins", "lamella help inspect "),
    ("lamella inspect oci:im", "lamella inspect oci:images:latest"),
    ("lamella inspect oci:images:l", "lamella inspect oci:images:latest"),
    ("lamella diff oci:images:latest en", "lamella diff oci:images:latest envs"),
    ("lamella pull x --store im", "lamella pull x --store images"),
    ("lamella pull x --require-ident", "lamella pull x --require-identity"),
]
START = {
    "bash": 'source "$SCRIPT"',
    "zsh": 'autoload -Uz compinit; compinit -u -D; eval "$(cat "$SCRIPT")"',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a layout of one tag and an environment."""
    publish(tmp_path / "images", [{"a": ""}])
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs/pyvenv.cfg").write_text("")
    return tmp_path


def environment(folder: Path, shell: str) -> dict[str, str]:
    """Variables of a shell that finds the command of these tests."""
    (folder / "script").write_text(script(shell))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "SCRIPT": str(folder / "script"), "TERM": "dumb", "HOME": str(folder), "LANG": "C.UTF-8"}


@pytest.mark.parametrize(("typed", "completed"), TYPED)
@pytest.mark.parametrize("shell", START)
def test_tab_completes_the_word(shell: str, typed: str, completed: str, folder: Path) -> None:
    program = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}[shell]
    need(shell)
    with terminal(program, folder, environment(folder, shell)) as shown:
        shown.type(f"PS1='ready''> '; {START[shell]}\n", until="ready> ")
        shown.type(f"{typed}\t", until=completed)


@pytest.mark.parametrize(("typed", "completed"), [each for each in TYPED if "--store" not in each[0]])
def test_fish_completes_the_word(typed: str, completed: str, folder: Path) -> None:
    done = subprocess.run(
        [need("fish"), "--no-config", "-c", 'source $SCRIPT; complete -C "$argv[1]"', typed],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(folder, "fish"),
    )
    words = [line.partition("\t")[0] for line in done.stdout.splitlines()]
    assert [word.rstrip("/") for word in words] == [completed.rsplit(maxsplit=1)[-1]]


class Shown:
    """A terminal with a shell in it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def type(self, keys: str, until: str) -> None:
        """Press `keys`, and read until `until` is shown."""
        os.write(self.descriptor, keys.encode())
        seen, limit = "", time.monotonic() + 60
        while until not in seen:
            assert time.monotonic() < limit, seen
            if select.select([self.descriptor], [], [], 1)[0]:
                seen += os.read(self.descriptor, 65536).decode(errors="replace")


@contextlib.contextmanager
def terminal(program: list[str], folder: Path, variables: dict[str, str]) -> Iterator[Shown]:
    """Run a shell in a terminal of its own."""
    child, descriptor = pty.fork()
    if not child:
        os.chdir(folder)
        os.execvpe(program[0], program, variables)
    try:
        yield Shown(descriptor)
    finally:
        # A shell without a terminal ends.
        os.close(descriptor)
        os.waitpid(child, 0)
