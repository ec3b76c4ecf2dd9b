"""Pushes that follow changes: of local code, of the environment, across failures and installers at work."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from lamella.builder import ScanOptions, WatchEvent, WatchOptions, watch
from lamella.layers import layer_files
from support.engines import missing, need
from support.installed import install, venv, wheel
from support.processes import Lines, started
from support.registry_simulator import Fault, RegistrySimulator
from support.schemas import problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder import Environment

pytestmark = pytest.mark.slow

_SECONDS = 60
"""Deadline for an event: a loaded machine is slow, and a missing event is a failure."""


class Watched:
    """A watch in a thread, with its events."""

    def __init__(self, reference: str) -> None:
        self.reference = reference
        self.events: queue.Queue[WatchEvent] = queue.Queue()
        self.stop = threading.Event()
        self.seen: list[WatchEvent] = []

    def next(self, kind: str) -> WatchEvent:
        """The next event of that kind; others before it are kept in `seen`."""
        until = time.monotonic() + _SECONDS
        while True:
            event = self.events.get(timeout=max(0.0, until - time.monotonic()))
            self.seen.append(event)
            if event.kind == kind:
                return event

    def settle(self) -> None:
        """Take events until none comes for a second: the watch waits for the next change."""
        with suppress(queue.Empty):
            while True:
                self.seen.append(self.events.get(timeout=1))


@contextmanager
def watching(reference: str, prefix: Path, options: WatchOptions) -> Iterator[Watched]:
    """Watch `prefix` until the block ends; an exception of the watch fails the test."""
    watched = Watched(reference)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            watch(reference, str(prefix), options, notify=watched.events.put, stop=watched.stop)
        except BaseException as error:
            raised.append(error)
            watched.events.put(WatchEvent("failed", f"the watch ended: {error!r}"))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield watched
    finally:
        watched.stop.set()
        thread.join(_SECONDS)
    assert not raised
    assert not thread.is_alive()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with one module."""
    folder = tmp_path / "project"
    (folder / "trainer").mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[project]\nname = "trainer"\nversion = "1"\n')
    (folder / "trainer/__init__.py").write_text("VALUE = 1\n")
    return folder


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """An environment with one package."""
    found = venv(tmp_path / "env", by="uv")
    install(found, wheel(tmp_path / "wheels", "alpha", "1.0", {"alpha.py": "VALUE = 1\n"}), by="uv")
    return found


@pytest.fixture
def options(project: Path) -> WatchOptions:
    """Options of a watch of both, without the interpreter's own files."""
    return WatchOptions(scan=ScanOptions(local=str(project), ignore=("python",), system_libraries=False), settle=0.5)


def files_of(reference: str, package: str) -> set[str]:
    """Names of the files that the tag has of a package."""
    return {os.path.basename(file.path) for layer in layer_files(reference, package) for file in layer.files}


def test_a_push_follows_an_edit_of_local_code(
    tmp_path: Path, prefix: Path, project: Path, options: WatchOptions
) -> None:
    with watching(f"oci:{tmp_path}/images:dev", prefix, options) as watched:
        first = watched.next("pushed")
        (project / "trainer/__init__.py").write_text("VALUE = 2\n")
        second = watched.next("pushed")
    assert second.packages == ("trainer 1",)
    assert second.reference != first.reference
    assert second.moved > 0


def test_a_push_follows_a_module_in_a_new_folder(
    tmp_path: Path, prefix: Path, project: Path, options: WatchOptions
) -> None:
    reference = f"oci:{tmp_path}/images:dev"
    with watching(reference, prefix, options) as watched:
        watched.next("pushed")
        (project / "other").mkdir()
        (project / "other/added.py").write_text("VALUE = 1\n")
        while "added.py" not in files_of(reference, "trainer"):
            watched.next("pushed")
        (project / "other/second.py").write_text("VALUE = 1\n")
        while "second.py" not in files_of(reference, "trainer"):
            watched.next("pushed")


def test_a_push_follows_code_that_was_removed_and_made_again(
    tmp_path: Path, prefix: Path, project: Path, options: WatchOptions
) -> None:
    module = project / "trainer/__init__.py"
    with watching(f"oci:{tmp_path}/images:dev", prefix, options) as watched:
        watched.next("pushed")
        for number in range(2):
            # As git does when it changes to a branch without the folder, and back.
            shutil.rmtree(module.parent)
            watched.next("pushed")
            module.parent.mkdir()
            module.write_text("VALUE = 2\n")
            watched.next("pushed")
            watched.settle()
            module.write_text(f"VALUE = 3  # {number}\n")
            assert watched.next("pushed").packages == ("trainer 1",)


def test_a_push_follows_an_environment_that_was_made_again(tmp_path: Path, prefix: Path, options: WatchOptions) -> None:
    with watching(f"oci:{tmp_path}/images:dev", prefix, options) as watched:
        watched.next("pushed")
        shutil.copytree(prefix, tmp_path / "another", symlinks=True)
        shutil.rmtree(prefix)
        watched.next("failed")
        os.rename(tmp_path / "another", prefix)
        install(prefix, wheel(tmp_path / "wheels", "beta", "1.0", {"beta.py": "VALUE = 1\n"}), by="uv")
        while "beta 1.0" not in watched.next("pushed").packages:
            pass
        watched.settle()
        install(prefix, wheel(tmp_path / "wheels", "gamma", "1.0", {"gamma.py": "VALUE = 1\n"}), by="uv")
        while "gamma 1.0" not in watched.next("pushed").packages:
            pass


def test_a_push_follows_an_installation(tmp_path: Path, prefix: Path, options: WatchOptions) -> None:
    beta = wheel(tmp_path / "wheels", "beta", "2.0", {"beta.py": "VALUE = 1\n"})
    with watching(f"oci:{tmp_path}/images:dev", prefix, options) as watched:
        watched.next("pushed")
        install(prefix, beta, by="uv")
        pushed = watched.next("pushed")
    assert pushed.packages == ("beta 2.0",)


def test_a_half_installed_package_is_not_pushed(tmp_path: Path, prefix: Path, options: WatchOptions) -> None:
    patient = replace(options, settle=2 * _SECONDS)
    (module,) = prefix.glob("lib/*/site-packages/alpha.py")
    reference = f"oci:{tmp_path}/images:dev"
    with watching(reference, prefix, patient) as watched:
        watched.next("pushed")
        module.unlink()
        assert "alpha" in watched.next("waiting").message
        assert "alpha.py" in files_of(reference, "alpha")
        module.write_text("VALUE = 2\n")
        assert watched.next("pushed").packages == ("alpha 1.0",)


def test_a_package_that_stays_incomplete_is_pushed_in_the_end(
    tmp_path: Path, prefix: Path, options: WatchOptions
) -> None:
    (module,) = prefix.glob("lib/*/site-packages/alpha.py")
    reference = f"oci:{tmp_path}/images:dev"
    with watching(reference, prefix, options) as watched:
        watched.next("pushed")
        module.unlink()
        watched.next("waiting")
        watched.next("pushed")
    assert "alpha.py" not in files_of(reference, "alpha")


def test_a_push_waits_for_uv(tmp_path: Path, prefix: Path, project: Path, options: WatchOptions) -> None:
    patient = replace(options, settle=2 * _SECONDS)
    with watching(f"oci:{tmp_path}/images:dev", prefix, patient) as watched:
        watched.next("pushed")
        with open(prefix / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (project / "added.py").write_text("VALUE = 1\n")
            assert "uv is installing" in watched.next("waiting").message
        (project / "trainer/__init__.py").write_text("VALUE = 2\n")
        watched.next("pushed")


def test_times_and_byte_code_do_not_push(tmp_path: Path, prefix: Path, project: Path, options: WatchOptions) -> None:
    module = project / "trainer/__init__.py"
    with watching(f"oci:{tmp_path}/images:dev", prefix, options) as watched:
        first = watched.next("pushed")
        module.touch()
        (project / "trainer/__pycache__").mkdir()
        (project / "trainer/__pycache__/__init__.cpython-311.pyc").write_bytes(b"code")
        watched.settle()
        module.write_text("VALUE = 2\n")
        second = watched.next("pushed")
    assert [event.reference for event in watched.seen if event.kind == "pushed"] == [first.reference, second.reference]


def test_a_push_is_retried_until_the_registry_takes_it(prefix: Path, project: Path, options: WatchOptions) -> None:
    simulator = RegistrySimulator()
    with simulator.serving(), watching(f"{simulator.host}/team/envs:dev", prefix, options) as watched:
        first = watched.next("pushed")
        simulator.faults.append(Fault("PUT", status=403, times=2))
        (project / "trainer/__init__.py").write_text("VALUE = 2\n")
        watched.next("failed")
        assert watched.next("pushed").reference != first.reference


def test_an_objection_prevents_a_push(tmp_path: Path, prefix: Path, project: Path, options: WatchOptions) -> None:
    (project / "trainer/allowed.py").write_text("")
    module = project / "trainer/__init__.py"

    def objection(environment: Environment) -> str:
        sizes = [
            file.size
            for package in environment.packages
            for file in package.files
            if file.path.endswith("trainer/__init__.py")
        ]
        return "too large" if max(sizes) > 100 else ""

    with watching(f"oci:{tmp_path}/images:dev", prefix, replace(options, objection=objection)) as watched:
        watched.next("pushed")
        module.write_text(f"VALUE = {'1' * 100}\n")
        assert watched.next("failed").message == "nothing pushed: too large"
        module.write_text("VALUE = 3\n")
        watched.next("pushed")


def test_the_limit_of_inotify_is_named_and_folders_are_polled(tmp_path: Path, prefix: Path, project: Path) -> None:
    limited = (
        'echo 2 >/proc/sys/user/max_inotify_watches && exec "$0" -m lamella.cli push --watch --json '
        f"--local {project} --ignore python oci:{tmp_path}/images:dev {prefix}"
    )
    unshare = need("unshare")
    probe = [unshare, "--user", "--map-root-user", "sh", "-c", "echo 2 >/proc/sys/user/max_inotify_watches"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        missing("this machine allows no user namespace with limits of its own")
    with started([unshare, "--user", "--map-root-user", "sh", "-c", limited, sys.executable], stdout=PIPE) as process:
        assert process.stdout
        lines = map(json.loads, Lines(process.stdout))
        polled = next(line for line in lines if line["event"] == "polling")
        assert "fs.inotify.max_user_watches" in polled["message"]
        (project / "trainer/__init__.py").write_text("VALUE = 2\n")
        pushed = next(line for line in lines if line["event"] == "pushed")
        assert pushed["packages"] == ["trainer 1"]
        schema = Path(__file__).parents[3] / "docs/reference/schemas/push-watch.json"
        for line in (polled, pushed):
            assert problems(line, schema) == []


@pytest.mark.parametrize(
    ("number", "code", "last"), [(signal.SIGINT, 130, "stopped watching; oci:"), (signal.SIGTERM, 143, "")]
)
def test_a_signal_ends_the_watch(tmp_path: Path, prefix: Path, number: int, code: int, last: str) -> None:
    command = ["-m", "lamella.cli", "push", "--watch", "--no-local", "--ignore", "python"]
    with started(
        [sys.executable, *command, f"oci:{tmp_path}/images:dev", str(prefix)], stdout=PIPE, stderr=PIPE
    ) as process:
        assert process.stdout
        assert process.stderr
        printed, notes = Lines(process.stdout), Lines(process.stderr)
        assert "pushed" in next(printed)
        assert any(re.match(r"[\d:]{8} watching /", line) for line in notes)
        process.send_signal(number)
        assert process.wait(_SECONDS) == code
        error = "\n".join(notes)
        assert "Traceback" not in error
        assert error.startswith(last)
