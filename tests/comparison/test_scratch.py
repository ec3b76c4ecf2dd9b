from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lamella.comparison.errors import ComparisonError
from lamella.comparison.measuring.processes import below, processes, subreaper
from lamella.comparison.programs.commands import MARK
from lamella.comparison.scratch import CLAIM, PREFIX, claimed, clear, clear_abandoned, end_processes, scratch_folder
from support.processes import DEADLINE, started


def until_marked(pid: int) -> None:
    """Wait for the child's own variables: for a moment of execve(2) it shows none."""
    until = time.monotonic() + DEADLINE
    while MARK.encode() not in Path(f"/proc/{pid}/environ").read_bytes():
        assert time.monotonic() < until


def test_a_scratch_folder_goes_with_its_processes_when_it_is_left(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with scratch_folder(str(tmp_path)) as folder:
            child = stack.enter_context(started(["sleep", "600"], env={MARK: folder}))
            until_marked(child.pid)
        assert child.wait(10) in (0, -signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_a_running_comparison_is_left_alone(tmp_path: Path) -> None:
    folder = claimed(str(tmp_path))
    clear_abandoned(str(tmp_path))
    assert Path(folder).is_dir()
    clear(folder)
    clear(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_comparison_s_folder_and_processes_are_cleared_by_the_next(tmp_path: Path) -> None:
    folder = Path(claimed(str(tmp_path)))
    claim = json.loads((folder / CLAIM).read_text())
    (folder / CLAIM).write_text(json.dumps(claim | {"started": "0"}))
    with started(["sleep", "600"], env={MARK: str(folder)}) as child:
        until_marked(child.pid)
        clear_abandoned(str(tmp_path))
        assert not folder.exists()
        assert child.wait(10) in (0, -signal.SIGKILL)


def test_folders_without_a_claim_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"{PREFIX}mine").mkdir()
    (tmp_path / "other").mkdir()
    clear_abandoned(str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_does_not_cut_the_clearing_short(number: signal.Signals, tmp_path: Path) -> None:
    program = """if 1:
        import os, signal, sys, time
        from lamella.comparison.scratch import scratch_folder
        with scratch_folder(sys.argv[1]) as folder:
            try:
                print("ready", flush=True)
                # Not signal.pause(): a signal just before it is not seen.
                while True:
                    time.sleep(0.01)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                print("cleared", flush=True)
    """
    with started([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        child.send_signal(number)
        assert child.stdout.read() == "cleared\n"
        assert child.wait(DEADLINE) != 0
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_that_cannot_be_made_is_named_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ComparisonError, match=r"^--scratch \S+/file/below: Not a directory; name another folder$"),
        scratch_folder(f"{tmp_path}/file/below"),
    ):
        pass


def test_folders_of_sockets_that_a_signal_left_are_cleared_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("lamella.comparison.scratch._short_parent", lambda: str(tmp_path / "tmp"))
    with scratch_folder(str(tmp_path / "scratch")):
        claimed(str(tmp_path / "tmp"))
    assert list((tmp_path / "tmp").iterdir()) == []


def test_processes_without_the_mark_that_work_in_the_folder_are_ended(tmp_path: Path) -> None:
    folder = claimed(str(tmp_path))
    with started(["sleep", "600"], env={}, cwd=folder) as child:
        end_processes(folder)
        assert child.wait(10) in (0, -signal.SIGKILL)
    clear(folder)


def test_a_user_s_process_in_the_folder_of_a_killed_comparison_is_left_alone(tmp_path: Path) -> None:
    folder = claimed(str(tmp_path))
    # Not a child of this process, as a shell in another terminal.
    daemon = ["sh", "-c", "sleep 600 >&- 2>&- & echo $!"]
    pid = int(subprocess.run(daemon, cwd=folder, capture_output=True, text=True, check=True).stdout)
    try:
        clear(folder)
        os.kill(pid, 0)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_no_ended_process_is_left_unwaited_for(tmp_path: Path) -> None:
    folder = claimed(str(tmp_path))
    family = "for each in 1 2 3 4 5 6 7 8; do sleep 600 & done; echo ready; wait"
    with subreaper(), started(["sh", "-c", family], env={MARK: folder}, stdout=subprocess.PIPE) as child:
        assert child.stdout
        assert child.stdout.readline() == "ready\n"
        clear(folder)
        assert [each for each in below(os.getpid(), processes()) if each.state == "Z"] == []
