"""`%lamella` in IPython's shell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from lamella.integrations import jupyter
from lamella.integrations.jupyter import command
from lamella.integrations.jupyter.command import CommandFailed
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    made = InteractiveShell(
        config=Config({"HistoryManager": {"enabled": False}}), ipython_dir=str(tmp_path_factory.mktemp("ipython"))
    )
    made.run_line_magic("load_ext", "lamella.integrations.jupyter")
    yield made
    jupyter.unload_ipython_extension(made)
    made.restore_sys_module_state()


@pytest.fixture
def layouts(tmp_path: Path) -> tuple[str, str]:
    """Two environments that differ in one package."""
    before = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}], tag="v1")
    after = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\necho\n"}], tag="v2")
    return before, after


def run(shell: InteractiveShell, line: str) -> Any:
    """The value of a cell with the magic."""
    done = shell.run_cell(f"%lamella {line}")
    return done.result


def test_without_words_it_lists_the_verbs(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    run(shell, "")
    printed = capsys.readouterr().out
    assert "usage: lamella" in printed
    assert "  push " in printed


def test_diff_is_a_table_and_a_value(shell: InteractiveShell, layouts: tuple[str, str]) -> None:
    result = run(shell, f"diff {layouts[0]} {layouts[1]}")
    assert [each["after"]["name"] for each in result.document["changed"]] == ["p0"]
    assert "<td" in result._repr_html_()
    assert "0 packages the same, 1 different" in repr(result)


def test_another_verb_prints_its_own_text(
    shell: InteractiveShell, layouts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shell, f"inspect {layouts[0]}") is None
    assert "p0" in capsys.readouterr().out


def test_json_prints_the_document(
    shell: InteractiveShell, layouts: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(shell, f"diff --json {layouts[0]} {layouts[1]}") is None
    assert '"version": 1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("pulll x", "pulll: unknown verb; did you mean pull?"),
        ("scan /nonexistent", "/nonexistent: no such folder; name the folder that holds bin/python"),
        ("inspect 'x", "%lamella: no closing quotation; quote words as in a shell"),
        ("push {reference}", "%lamella: {reference}: no such variable in this notebook; define it in a cell first"),
        ("push localhost:1/team/$name:v1", "%lamella: $name: no such variable in this notebook; define it in a cell"),
        ("login localhost:1 --password x", "login --password: unknown option; every process can read a command line"),
        ("diff", "%lamella diff: nothing was pushed here yet; use %lamella diff REFERENCE"),
    ],
)
def test_an_error_is_one_sentence_without_a_traceback(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], line: str, sentence: str
) -> None:
    done = shell.run_cell(f"%lamella {line}")
    assert not done.success
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert (printed.out + printed.err).count(sentence) == 1


@pytest.mark.parametrize("password", ["open-sesame", "$sesame", "open$sesame"])
def test_no_password_in_a_reference_is_shown(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str], password: str
) -> None:
    shell.run_cell(f"%lamella inspect https://ada:{password}@localhost:1/team/envs")
    printed = capsys.readouterr()
    assert "localhost:1" in printed.out + printed.err
    assert "sesame" not in printed.out + printed.err


def test_a_password_is_asked_for_and_not_echoed(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setattr("getpass.getpass", lambda _: "open-sesame")
    shell.run_cell("%lamella login localhost:1 -u ada")
    printed = capsys.readouterr()
    assert "localhost:1: cannot connect" in printed.out + printed.err
    assert "open-sesame" not in printed.out + printed.err


def test_an_interrupt_ends_the_command(layouts: tuple[str, str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(CommandFailed, match="interrupted; no partial result left behind"):
        command.run(["run", layouts[0], "--", "sleep", "600"], remark=print, tick=interrupt)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("%lamella pu", {"push", "pull"}),
        ("%lamella scan --left", {"--left-out"}),
        ("%lamella nothing --", set()),
    ],
)
def test_verbs_and_options_complete(shell: InteractiveShell, line: str, expected: set[str]) -> None:
    with provisionalcompleter():
        found = {each.text for each in shell.Completer.completions(line, len(line))}
    assert found & {"push", "pull", "scan", "--left-out", "--all"} == expected
