"""The verbs as a person types them: what goes to stdout, what to stderr, and what --json and --dry-run mean."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from support.engines import need_root
from support.installed import install, venv, wheel
from support.projects import project

if TYPE_CHECKING:
    from pathlib import Path

FILES = {"alpha/__init__.py": "VALUE = 41\n", "alpha/more.py": "import alpha\n" * 500}


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with two small packages."""
    folder = tmp_path_factory.mktemp("verbs")
    alpha = wheel(folder, "alpha", "1.0", FILES, entry_points="[console_scripts]\nalpha = alpha:main\n")
    beta = wheel(folder, "beta", "2.0", {"beta.py": "import alpha\n"}, requires=["alpha>=1"])
    return install(venv(folder / "env", by="uv"), alpha, beta, by="uv")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A store of this module, and the cache of the whole run, so that the interpreter's layer is made once."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return {"LAMELLA_STORE": str(tmp_path_factory.mktemp("node") / "store"), "LAMELLA_CACHE": str(shared / "cache")}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry") / "layout"


class Command:
    """Runs `lamella` with the module's store and cache."""

    def __init__(self, settings: dict[str, str]) -> None:
        self.settings = settings

    def __call__(
        self, *arguments: object, cwd: Path | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            env=os.environ | self.settings,
            cwd=cwd,
        )

    def json(self, *arguments: object) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def lamella(settings: dict[str, str]) -> Command:
    return Command(settings)


@pytest.fixture(scope="module")
def reference(lamella: Command, prefix: Path, layout: Path) -> str:
    """The environment, pushed to a layout, as the push's own result names it."""
    done = lamella("push", f"oci:{layout}:v1", prefix)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_scan_shows_packages_with_origin_files_and_size_and_their_sum(lamella: Command, prefix: Path) -> None:
    done = lamella("scan", prefix)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines[0] == str(prefix)
    assert f"cpython {sys.version.split()[0]} on linux/" in lines[1]
    assert lines[3].split() == ["Package", "Version", "Origin", "Files", "Size"]
    words = {line.split()[0]: line.split()[1:4] for line in lines[4:] if line.split()[1:2]}
    assert words["alpha"][:2] == ["1.0", "pypi"]
    assert words["python"][1] == "python"
    assert any(" packages, " in line and " files, " in line for line in lines)


def test_scan_as_json_has_every_package_finding_and_path_left_out(lamella: Command, prefix: Path) -> None:
    document = lamella.json("scan", prefix)
    alpha = next(package for package in document["packages"] if package["name"] == "alpha")
    assert (alpha["version"], alpha["origin"]) == ("1.0", "pypi")
    assert alpha["files"] >= 2
    assert alpha["size"] >= len(FILES["alpha/more.py"])
    assert document["prefix"] == str(prefix)
    assert all(left["reason"] for left in document["left_out"])
    assert isinstance(document["findings"], list)


def test_scan_lists_what_is_left_out_when_asked(lamella: Command, prefix: Path) -> None:
    assert "pyvenv.cfg" not in lamella("scan", prefix).stdout
    assert "pyvenv.cfg" in lamella("scan", prefix, "--left-out").stdout


def test_scan_on_a_terminal_says_the_same_words_in_colour(
    prefix: Path, settings: dict[str, str], lamella: Command
) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lamella.cli", "scan", str(prefix)]
    environment = os.environ | settings | {"TERM": "xterm-256color", "COLUMNS": "200"}
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed: the command has ended
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert process.wait() == 0
    assert b"\x1b[" in shown
