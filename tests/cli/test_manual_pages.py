"""The files that the wheel brings for `share/`."""

from __future__ import annotations

import re

import pytest

from lamella.cli.manual_pages import files
from lamella.cli.verbs import VERBS


@pytest.mark.slow
def test_the_files_do_not_depend_on_the_terminal_of_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    narrow = files("1.0")
    monkeypatch.setenv("COLUMNS", "200")
    assert files("1.0") == narrow


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return files("1.0")


@pytest.mark.parametrize("verb", VERBS)
def test_a_manual_page_has_each_flag_an_example_and_no_hidden_flag(made: dict[str, str], verb: str) -> None:
    text = made[f"share/man/man1/lamella-{verb}.1"]
    assert text.startswith(f'.TH LAMELLA\\-{verb.upper()} "1"')
    assert "\\-\\-json" in text
    assert re.search(r"^\.SH EXAMPLES\n\.nf\nlamella|^\.SH EXAMPLES\n\.nf\neval", text, re.MULTILINE)
    assert "candidates" not in text
