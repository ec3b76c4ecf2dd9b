"""A watch that is killed, or whose registry is restarted, with a real registry."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from contextlib import ExitStack
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from lamella.layers import verify_reference
from support.distribution import distribution
from support.installed import install, venv, wheel
from support.processes import DEADLINE, Lines, started

if TYPE_CHECKING:
    from pathlib import Path

KILLS = 4


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, shared: Path) -> None:
    monkeypatch.setenv("LAMELLA_CACHE", str(shared / "cache"))


@pytest.mark.slow
@pytest.mark.engine
def test_a_watch_killed_after_an_edit_leaves_a_whole_tag_and_the_next_one_pushes_the_edit(tmp_path: Path) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "dep", "1.0", {"dep.py": ""}))
    project = tmp_path / "project"
    project.mkdir()
    job = project / "job.py"
    job.write_text("print('edit 0')\n")
    moment = random.Random(1)
    lamella = [sys.executable, "-m", "lamella.cli"]
    with distribution() as registry:
        reference = f"{registry}/team/envs:dev"
        watch = [*lamella, "push", "--watch", "--local", str(project), reference, str(prefix)]
        for number in range(1, KILLS + 1):
            with started(watch, cwd=project, stdout=PIPE, stderr=PIPE) as process:
                assert process.stdout
                assert reference in next(Lines(process.stdout))
                job.write_text(f"print('edit {number}')\n")
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(moment.uniform(0, 0.8))
                process.kill()
            assert verify_reference(reference).faults == ()

        with started(watch, cwd=project, stdout=PIPE, stderr=PIPE) as process:
            assert process.stdout
            assert reference in next(Lines(process.stdout))
        done = subprocess.run(
            [*lamella, "run", "--store", tmp_path / "store", reference, "--", "python", "-m", "job"],
            check=False, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE,
        )  # fmt: skip
        assert (done.stdout, done.returncode) == (f"edit {KILLS}\n", 0), done.stderr


@pytest.mark.slow
@pytest.mark.engine
def test_a_watch_pushes_an_edit_made_while_the_registry_was_stopped(tmp_path: Path) -> None:
    prefix = install(venv(tmp_path / "env"), wheel(tmp_path, "dep", "1.0", {"dep.py": ""}))
    project = tmp_path / "project"
    project.mkdir()
    job = project / "job.py"
    job.write_text("print('before')\n")
    folder = str(tmp_path / "registry")
    lamella = [sys.executable, "-m", "lamella.cli"]
    with ExitStack() as stack:
        with distribution(folder=folder) as registry:
            reference = f"{registry}/team/envs:dev"
            watch = [*lamella, "push", "--watch", "--json", "--local", str(project), reference, str(prefix)]
            process = stack.enter_context(started(watch, cwd=project, stdout=PIPE, stderr=PIPE))
            assert process.stdout
            events = (json.loads(line) for line in Lines(process.stdout))
            assert next(events)["event"] == "pushed"
        job.write_text("print('meanwhile')\n")
        while next(events)["event"] != "failed":
            pass
        with distribution(folder=folder, port=int(registry.rpartition(":")[2])):
            while next(events)["event"] != "pushed":
                pass
            process.terminate()
            assert verify_reference(reference).faults == ()
            done = subprocess.run(
                [*lamella, "run", "--store", tmp_path / "store", reference, "--", "python", "-m", "job"],
                check=False, capture_output=True, text=True, cwd=tmp_path, timeout=DEADLINE,
            )  # fmt: skip
            assert (done.stdout, done.returncode) == ("meanwhile\n", 0), done.stderr
