"""Tables and help on real terminals of several widths, with and without colour."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from lamella.cli.tables import cells
from lamella.layers import Store, attach, pull
from support.processes import started
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

WIDTHS = [20, 40, 60, 80, 200]
COMMANDS = [
    ["inspect", "oci:images:v1"],
    ["inspect", "oci:images:v1", "--all"],
    ["diff", "oci:images:v0", "oci:images:v1"],
    ["pull", "--dry-run", "oci:images:v1", "--store", "empty"],
    ["ls"],
    ["df"],
    ["help", "push"],
]
SIZE = re.compile(r"\d[\d.]* (?:B|[kMG]B)\b")
COLOUR = re.compile(r"\x1b\[(?:\d+;)*3[0-7](?:;\d+)*m")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a layout of two environments, and a store with one."""
    folder = tmp_path_factory.mktemp("terminal")
    publish(folder / "images", [{"a": "a" * 900}], tag="v0")
    publish(folder / "images", [{f"{n}": str(n) * 10**n} for n in range(6)], tag="v1")
    pull(f"oci:{folder}/images:v0", store=Store(str(folder / "store")))
    return folder


def shown(folder: Path, width: int, *arguments: str, **variables: str) -> str:
    """What the command prints on a terminal of `width` columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    own = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES", "NO_COLOR"}}
    own |= {"TERM": "xterm-256color", "LAMELLA_STORE": f"{folder}/store", "LAMELLA_CACHE": f"{folder}/cache"}
    command = [sys.executable, "-m", "lamella.cli", *arguments]
    found = b""
    with started(
        command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=own | variables, cwd=folder
    ) as process:
        os.close(theirs)
        while chunk := _read(ours):
            found += chunk
        os.close(ours)
        assert process.wait() == 0, found
    return found.decode().replace("\r\n", "\n")


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the command closed the terminal
        return b""


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_size_is_whole_at_every_width(arguments: list[str], folder: Path) -> None:
    sizes = []
    for width in WIDTHS:
        text = plain(shown(folder, width, *arguments))
        # Commands and references stay whole, and the terminal wraps them.
        lines = [line for line in text.splitlines() if "lamella " not in line and "oci:" not in line]
        lines = [line for line in lines if str(folder) not in line and not line.startswith(("usage: ", "  -"))]
        if arguments[0] != "help" or width > 36:
            assert [line for line in lines if cells(line) > width] == []
        # The free space of the disk changes.
        sizes.append(sorted("? GB" if size.endswith("GB") else size for size in SIZE.findall(text)))
    assert sizes == [sizes[-1]] * len(WIDTHS)


def test_colours_are_on_a_terminal_alone_and_no_color_turns_them_off(folder: Path) -> None:
    arguments = ("diff", "oci:images:v0", "oci:images:v1")
    assert COLOUR.search(shown(folder, 80, *arguments))
    assert not COLOUR.search(shown(folder, 80, *arguments, NO_COLOR="1"))
    assert "\x1b" not in shown(folder, 80, *arguments, TERM="dumb")
    done = subprocess.run(
        [sys.executable, "-m", "lamella.cli", *arguments], check=True, capture_output=True, text=True, cwd=folder
    )
    assert "\x1b" not in done.stdout


def test_the_bar_goes_first_and_then_spare_columns(folder: Path) -> None:
    widths = {width: plain(shown(folder, width, "inspect", "oci:images:v1")) for width in (200, 60, 45)}
    assert ["█" in text for text in widths.values()] == [True, False, False]
    assert ["Layer" in text for text in widths.values()] == [True, True, False]
    assert all("Unpacked" in text for text in widths.values())


def test_the_type_of_an_attachment_is_shown_on_a_narrow_terminal(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "uv.lock").write_text("")
    attach(f"oci:{folder}/images:v0", [f"{tmp_path}/uv.lock"], "application/vnd.example.lock")
    lines = [line for line in plain(shown(folder, 60, "artifacts", "oci:images:v0")).splitlines() if line]
    assert "Type" in lines[0]
    at = lines[0].index("Type")
    width = lines[0].index("Digest") - at
    assert "".join(line[at : at + width].strip() for line in lines[1:]) == "application/vnd.example.lock"
