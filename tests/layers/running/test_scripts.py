"""A script that exists only elsewhere is reported, and one that hides the environment's own is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers.running.scripts import missing, not_a_command, note
from support.trees import write

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An environment with train.py and jobs/nightly.py, seen from an empty folder."""
    for name in ("train.py", "jobs/nightly.py", "my-job.py"):
        write(tmp_path / "env", {f"lib/python3.12/site-packages/{name}": "shipped\n"})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return str(tmp_path / "env")


@pytest.mark.parametrize("command", [["python", "train.py"], ["python3.12", "-u", "-X", "dev", "./train.py", "--fast"]])
def test_a_script_that_the_environment_has_is_run_as_a_module(prefix: str, command: list[str]) -> None:
    script = command[1] if len(command) == 2 else command[4]
    assert missing(prefix, command) == (
        f"{script}: no such file on this machine; the environment has it: run python -m train"
    )


def test_a_script_in_a_folder_is_a_module_of_that_package(prefix: str) -> None:
    assert missing(prefix, ["python", "jobs/nightly.py"]).endswith("run python -m jobs.nightly")
    assert missing(prefix, ["python", "/home/ada/project/train.py"]).endswith("run python -m train")


def test_a_script_whose_name_is_not_a_module_s_is_run_by_its_path(prefix: str) -> None:
    path = f"{prefix}/lib/python3.12/site-packages/my-job.py"
    assert missing(prefix, ["python", "my-job.py"]).endswith(f"run python {path}")


def test_a_script_that_is_nowhere_is_pushed_first(prefix: str) -> None:
    assert missing(prefix, ["python", "other.py"]) == (
        "other.py: no such file on this machine, whose files the command sees; push it with the environment, then run "
        "python -m other"
    )


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-m", "train"],
        ["python", "-Im", "train.py"],
        ["python", "-c", "print()", "train.py"],
        ["python", "-"],
        ["python"],
        ["bash", "train.py"],
        ["python", "data.zip"],
        ["train"],
    ],
)
def test_other_commands_are_left_alone(prefix: str, command: list[str]) -> None:
    assert missing(prefix, command) == ""


def test_a_script_of_this_machine_runs(prefix: str, tmp_path: Path) -> None:
    (tmp_path / "here" / "train.py").write_text("shipped\n")
    assert missing(prefix, ["python", "train.py"]) == ""
    assert note(prefix, ["python", "train.py"]) == "", "both have the same bytes"
    (tmp_path / "here" / "train.py").write_text("edited\n")
    assert note(prefix, ["python", "train.py"]) == (
        "train.py: runs this machine's file, which differs from the environment's; run that with python -m train"
    )
    (tmp_path / "here" / "mine.py").write_text("")
    assert note(prefix, ["python", "mine.py"]) == ""


def test_a_script_without_python_before_it_is_advice(prefix: str, tmp_path: Path) -> None:
    assert not_a_command(prefix, "train.py").endswith("run python -m train")
    (tmp_path / "here" / "mine.py").write_text("")
    assert not_a_command(prefix, "mine.py") == "mine.py: not a program; use python mine.py"
    assert not_a_command(prefix, "nothing") == ""
