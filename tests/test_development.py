"""What the Makefile installs, and what the tests leave behind."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support.engines import ENGINES
from support.processes import exit_code, forked, started

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent


def packages() -> dict[str, str]:
    """The Debian packages that `make test` installs, each with its job."""
    found = re.search(r"^define PACKAGES\n(.*?)^endef$", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in found[1].splitlines()}


def test_make_installs_every_engine_that_a_test_may_need() -> None:
    assert set(ENGINES.values()) - packages().keys() == set()


def test_every_installed_package_has_its_job_beside_it() -> None:
    assert [name for name, job in packages().items() if not job] == []


def test_tests_start_processes_only_through_support() -> None:
    starts = re.compile(r"\bPopen\(|\bos\.(fork|spawn\w+|posix_spawnp?)\(")
    files = {path for path in (ROOT / "tests").rglob("*.py") if starts.search(path.read_text())}
    # `killed` is a program of its own, which kills what it forks; measurements have no tests.
    allowed = {ROOT / "tests/support/processes.py", ROOT / "tests/support/killed.py"}
    assert {path for path in files if path.parent != ROOT / "tests/bench"} == allowed


@contextmanager
def all_writers_end() -> Iterator[int]:
    """Give the writing end of a pipe; check that no process holds it soon after the block."""
    reader, writer = os.pipe()
    try:
        yield writer
        os.close(writer)
        assert select.select([reader], [], [], 30)[0]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_started_process_ends_with_its_children_when_the_test_fails() -> None:
    command = ["sh", "-c", "sleep 300 & wait"]
    with all_writers_end() as writer, pytest.raises(ZeroDivisionError), started(command, pass_fds=[writer]):
        raise ZeroDivisionError


def test_forked_process_ends_with_its_children_when_the_test_fails() -> None:
    with all_writers_end() as writer:

        def wait() -> None:
            subprocess.run(["sleep", "300"], check=False, pass_fds=[writer])

        with pytest.raises(ZeroDivisionError), forked(wait):
            raise ZeroDivisionError


def test_forked_process_reports_an_error_with_its_exit_code() -> None:
    assert exit_code(lambda: 1 / 0) == 1
    assert exit_code(lambda: os.kill(os.getpid(), signal.SIGTERM)) == -signal.SIGTERM


def test_processes_of_tests_receive_the_signals_that_the_parent_ignores() -> None:
    show = "grep SigIgn /proc/self/status"
    program = f"""
import subprocess
from support.processes import stop_ignoring_signals
subprocess.run({show.split()}, check=True)
stop_ignoring_signals()
subprocess.run({show.split()}, check=True)
"""
    command = ["sh", "-c", """trap '' HUP INT QUIT; exec "$@" """, "sh", sys.executable, "-c", program]
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "tests").stdout
    before, after = (int(line.split()[1], 16) for line in shown.splitlines())
    mask = sum(1 << number - 1 for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT))
    assert (before & mask, after & mask) == (mask, 0)
