"""Words that complete an argument."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.cli.candidates import candidates
from lamella.cli.completion import script
from lamella.cli.verbs import VERBS
from lamella.layers import Store, pull
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a layout, two environments and another folder."""
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "images", [{"a": ""}])
    for name in (".venv", "work/env"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "pyvenv.cfg").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "word", "words"),
    [
        ("reference", "", ["oci:"]),
        ("reference", "oci:", ["oci:images:latest", "oci:work/"]),
        ("reference", "oci:images", ["oci:images:latest"]),
        ("reference", "oci:images:", ["oci:images:latest"]),
        ("reference", "oci:images:v", []),
        ("reference", "oci:absent/", []),
        ("environment", "", [".venv", "images/", "work/"]),
        ("environment", "work/", ["work/env"]),
        ("environment", ".v", [".venv"]),
        ("either", "im", ["images/"]),
        ("mount", "wo", ["work/"]),
    ],
)
def test_candidates_are_what_this_machine_knows(kind: str, word: str, words: list[str], tmp_path: Path) -> None:
    assert candidates(kind, word, str(tmp_path / "store")) == words


def test_references_of_the_store_are_candidates(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    pull("oci:images:latest", store=store)
    (tmp_path / "images").rename(tmp_path / "away")
    assert f"oci:{tmp_path}/images:latest" in candidates("reference", "", store.path)


def test_a_damaged_layout_has_no_candidates(folder: Path) -> None:
    (folder / "images/index.json").write_text("{")
    assert candidates("reference", "oci:images:", "") == []


def test_a_name_that_controls_a_terminal_is_not_a_candidate(folder: Path) -> None:
    (folder / "work\x1b[2J").mkdir()
    assert candidates("environment", "wo", "") == ["work/"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_holds_every_verb_and_flag(shell: str) -> None:
    text = script(shell)
    assert [verb for verb in VERBS if verb not in text] == []
    assert "no-system-libraries" in text
    assert "==SUPPRESS==" not in text
