"""A node's agent as a process, with real mounts: restarts, uses in other mount namespaces, freeing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.agents import agent_process, wait_for
from support.engines import need, need_root
from support.processes import DEADLINE, Lines, started
from support.published import publish

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.agents import Agent

pytestmark = [pytest.mark.slow, pytest.mark.root]

FREES = ("--keep", "1B", "--idle", "0s", "--every", "0.2")


@pytest.fixture
def reference(short_path: Path) -> str:
    need_root()
    return publish(short_path / "layout", [{"bin/tool*": "#!/bin/sh\necho 1\n"}, {"lib/data": "1"}])


@contextmanager
def serving(short_path: Path, *arguments: str) -> Iterator[tuple[Agent, subprocess.Popen[str]]]:
    """Run an agent that may give the environments of `short_path`; its mounts go with the block."""
    with agent_process(short_path, "--allow", f"oci:{short_path}", *arguments) as (made, process):
        try:
            yield made, process
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                made.clean()


@contextmanager
def pod(path: str, point: Path, setup: str = 'mount --bind "$0" "$1"') -> Iterator[subprocess.Popen[str]]:
    """A process in a mount namespace of its own, with the environment at `point`, until its input closes."""
    point.mkdir()
    command = [need("unshare"), "--mount", "sh", "-c", f"{setup} && echo ready && read line", path, str(point)]
    with started(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert next(Lines(process.stdout)) == "ready"
        yield process


def looked(made: Agent) -> Callable[[], bool]:
    """Whether the agent has looked at the space twice since it started."""
    return lambda: bool(re.search(r"checks_total (?:[2-9]|\d\d)", made.get("/metrics")[1]))


def test_an_agent_ends_on_sigterm_and_leaves_its_mounts(short_path: Path, reference: str) -> None:
    with serving(short_path) as (made, process):
        given = made.give(reference)
        with pod(given.path, short_path / "pod"):
            process.terminate()
            assert process.wait(10) == 0
            assert not os.path.exists(made.socket)
            assert os.path.ismount(given.path)


def test_an_agent_that_starts_after_a_kill_finds_the_mounts_and_goes_on(short_path: Path, reference: str) -> None:
    with serving(short_path) as (made, process):
        given = made.give(reference)
        before = os.stat(given.path).st_dev
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        assert os.path.exists(made.socket)

        with serving(short_path) as (again, _):
            assert again.give(reference) == given
            assert os.stat(given.path).st_dev == before, "mounted once more"
            assert "lamella_agent_downloaded_layers_total 0\n" in again.get("/metrics")[1]
            assert "found 1 mounted environment" in (short_path / "agent.log").read_text()


def test_an_environment_that_another_namespace_uses_is_freed_only_afterwards(short_path: Path, reference: str) -> None:
    log = short_path / "agent.log"
    with serving(short_path, "--every", "600") as (made, process):
        given = made.give(reference)
        with pod(given.path, short_path / "pod") as user:
            process.terminate()
            process.wait(DEADLINE)
            with serving(short_path, *FREES) as (again, _):
                wait_for(looked(again), log)
                assert os.path.ismount(given.path)
                assert "lamella_agent_environments_in_use 1\n" in again.get("/metrics")[1]
                inside = [need("nsenter"), "--mount", "--target", str(user.pid), f"{short_path}/pod/bin/tool"]
                assert subprocess.run(inside, capture_output=True, check=True).stdout == b"1\n"
                user.kill()
                user.wait()
                wait_for(lambda: not os.path.exists(given.path), log)
                wait_for(lambda: not list((short_path / "store/layers/sha256").iterdir()), log)
    assert f"unmounted {given.reference}" in log.read_text()


def test_a_pod_that_uses_a_part_keeps_the_environment(short_path: Path, reference: str) -> None:
    log = short_path / "agent.log"
    with serving(short_path, "--every", "600") as (made, process):
        given = made.give(reference)
        # The copies of the node's own mounts are taken away, as a container's change of root does.
        setup = 'mount --bind "$0/lib" "$1" && umount "$0"'
        with pod(given.path, short_path / "pod", setup):
            process.terminate()
            process.wait(DEADLINE)
            with serving(short_path, *FREES) as (again, _):
                wait_for(looked(again), log)
                assert os.path.ismount(given.path)


def test_an_environment_with_an_open_file_is_kept(short_path: Path, reference: str) -> None:
    log = short_path / "agent.log"
    with serving(short_path, "--every", "600") as (made, process):
        given = made.give(reference)
        process.terminate()
        process.wait(DEADLINE)
        with Path(given.path, "lib/data").open() as opened, serving(short_path, *FREES):
            wait_for(lambda: f"kept {given.path}" in log.read_text(), log)
            assert opened.read() == "1"
            assert os.path.ismount(given.path)


def test_an_agent_without_sight_of_other_processes_frees_nothing_that_is_mounted(
    short_path: Path, reference: str
) -> None:
    log = short_path / "agent.log"
    with serving(short_path) as (made, process):
        given = made.give(reference)
        process.terminate()
        process.wait(DEADLINE)
        need("unshare")
        within = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "unchanged"]
        with agent_process(short_path, "--allow", f"oci:{short_path}", *FREES, within=within) as (again, _):
            wait_for(looked(again), log)
            assert "set hostPID: true" in log.read_text()
            assert "environments_in_use" not in again.get("/metrics")[1]
        assert os.path.ismount(given.path)
        assert Path(given.path, "lib/data").read_text() == "1"
