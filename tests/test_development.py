"""What the Makefile and CI install and run, and what the tests leave behind."""

from __future__ import annotations

import importlib
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

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


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.14"])
def test_lock_holds_one_fitting_version_of_every_requirement(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux"}
    wanted = [Requirement(text) for text in (*project()["dependencies"], *project()["optional-dependencies"]["test"])]
    pins = [Requirement(line) for line in (ROOT / "requirements-dev.lock").read_text().splitlines()]
    versions: dict[str, list[str]] = {}
    for pin in pins:
        if pin.marker is None or pin.marker.evaluate(here):
            versions.setdefault(pin.name, []).append(str(pin.specifier).removeprefix("=="))
    assert [name for name, pinned in versions.items() if len(pinned) > 1] == []
    needed = [each for each in wanted if each.marker is None or each.marker.evaluate(here)]
    assert {each.name for each in needed} - versions.keys() == set()
    assert [str(each) for each in needed if not each.specifier.contains(versions[each.name][0])] == []


def test_ci_runs_the_quick_tests_on_every_python_since_the_oldest() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    (listed,) = re.findall(r"^ +python: \[(.*)\]$", workflow, re.MULTILINE)
    versions = [version.strip('" ') for version in listed.split(",")]
    oldest, newest = (int(version.removeprefix("3.")) for version in (versions[0], versions[-1]))
    assert versions == [f"3.{minor}" for minor in range(oldest, newest + 1)]
    supported = SpecifierSet(project()["requires-python"])
    assert supported.contains(f"3.{oldest}")
    assert not supported.contains(f"3.{oldest - 1}")


def test_ci_runs_commands_that_exist() -> None:
    workflow = (ROOT / ".github/workflows/ci.yml").read_text()
    commands = [line.split() for line in re.findall(r"^ +- run: (.*)$", workflow, re.MULTILINE)]
    assert commands
    makefile = (ROOT / "Makefile").read_text()
    for program, *arguments in commands:
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", makefile, re.MULTILINE), arguments[0]
        else:
            assert os.access(ROOT / program, os.X_OK), program


def test_tests_start_processes_only_through_support() -> None:
    starts = re.compile(r"\bPopen\(|\bos\.(fork|spawn\w+|posix_spawnp?)\(")
    files = {path for path in (ROOT / "tests").rglob("*.py") if starts.search(path.read_text())}
    # `killed` and `supervised` are programs of their own, which kill what they start; measurements have no tests.
    allowed = {ROOT / f"tests/support/{name}.py" for name in ("processes", "killed", "supervised")}
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


@pytest.mark.slow
def test_workflows_fit_the_schema_of_github() -> None:
    pages = sorted((ROOT / ".github/workflows").glob("*.yml"))
    check = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*check, *map(str, pages)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_release_makes_what_the_makefile_makes() -> None:
    release = (ROOT / ".github/workflows/release.yml").read_text()
    made = re.findall(r"^      - run: make (.*)$", release, re.MULTILINE)
    assert made == ["node-pyz node-image SYSTEM=no"]
    for target in ("node-pyz", "node-image"):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
