from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.comparison.errors import StepFailed
from lamella.comparison.measuring.meter import Meter
from lamella.comparison.measuring.processes import Process, below, read_process
from lamella.comparison.programs.commands import Commands
from support.processes import started

if TYPE_CHECKING:
    from pathlib import Path

BUSY = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def process(pid: int, parent: int) -> Process:
    return Process(pid, parent, "S", 0.0, 0.0)


def test_descendants_leave_out_the_trees_of_servers() -> None:
    listed = {each.pid: each for each in (process(2, 1), process(3, 2), process(4, 1), process(5, 4), process(6, 9))}
    assert sorted(each.pid for each in below(1, listed)) == [2, 3, 4, 5]
    assert sorted(each.pid for each in below(1, listed, without={4})) == [2, 3]


def test_a_process_s_name_may_hold_spaces_and_parentheses(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to(sys.executable)
    with started([str(program), "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = read_process(child.pid)
    assert found
    assert found.parent == os.getpid()


@pytest.mark.slow
def test_a_step_has_the_processor_time_and_memory_of_grandchildren_too(tmp_path: Path) -> None:
    commands = Commands(str(tmp_path))
    meter = Meter(commands)
    grandchild = (
        f"import subprocess, sys; kept = bytearray(60_000_000); subprocess.run([sys.executable, '-c', {BUSY!r}])"
    )
    with meter.step("build"):
        commands.run([sys.executable, "-c", grandchild])
    (step,) = meter.steps
    assert step.name == "build"
    assert step.seconds >= 0.3
    assert 0.3 <= step.cpu_seconds < 3
    assert step.peak_memory > 60_000_000


@pytest.mark.slow
def test_a_server_s_time_is_in_no_step(tmp_path: Path) -> None:
    commands = Commands(str(tmp_path))
    meter = Meter(commands)
    server = f"print('ready', flush=True)\n{BUSY}\ninput()"
    with commands.daemon([sys.executable, "-c", f"{server}"], "ready", is_server=True), meter.step("pull"):
        commands.run([sys.executable, "-c", BUSY])
    assert meter.steps[0].cpu_seconds < 0.55


def test_a_daemon_of_another_machine_is_elsewhere(tmp_path: Path) -> None:
    commands = Commands(str(tmp_path))
    with commands.daemon(["sh", "-c", "echo ready; exec sleep 60"], "ready", place="/laptop"):
        (daemon,) = commands.daemons
        assert commands.elsewhere(["/node"]) == {daemon}
        assert commands.elsewhere(["/laptop", "/node"]) == set()
    assert commands.elsewhere(["/node"]) == set()


def test_a_failed_command_is_named_with_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"^sh ended with 3: second$"):
        Commands(str(tmp_path)).run(["sh", "-c", "echo first >&2; echo second >&2; exit 3"])


def test_a_long_message_of_a_failed_command_keeps_its_end(tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"^sh ended with 1: Error: start x+…x+: the reason$") as error:
        Commands(str(tmp_path)).run(["sh", "-c", f"echo Error: start {'x' * 1000}: the reason; exit 1"])
    assert len(str(error.value)) < 330


def test_a_daemon_that_ends_before_it_is_ready_is_named_with_its_last_line(tmp_path: Path) -> None:
    with (
        pytest.raises(StepFailed, match=r"^sh did not start: no room$"),
        Commands(str(tmp_path)).daemon(["sh", "-c", "echo no room >&2"], "ready"),
    ):
        raise AssertionError


def test_settings_of_the_compared_programs_are_not_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("UV_INDEX", "PIP_FIND_LINKS", "DOCKER_HOST", "PYTHONPATH", "LAMELLA_CACHE"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("SSL_CERT_FILE", "kept")
    found = Commands(str(tmp_path)).environment({"DOCKER_HOST": "own"})
    assert found["DOCKER_HOST"] == "own"
    assert found["SSL_CERT_FILE"] == "kept"
    assert not found.keys() & {"UV_INDEX", "PIP_FIND_LINKS", "PYTHONPATH", "LAMELLA_CACHE"}
