"""Exported environments in fish and csh, by the real shells."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.layers.exporting.export import export
from lamella.layers.store.store import Store
from support.engines import need
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.engine

PYTHON = {
    "bin/python*": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    "bin/tool*": "#!/opt/env/bin/python\nimport sys; print('tool', sys.argv[1:])\n",
    ".lamella/relocate/pypi-tool.json": json.dumps(
        {"prefix": "/opt/env", "files": [{"path": "bin/tool", "kind": "text"}]}
    ),
}
GREETING = 'it\'s $HOME ! \\ `x` "q" 100%'
CONDA = {
    "conda-meta/state": json.dumps({"env_vars": {"GREETING": GREETING}}),
    "etc/conda/activate.d/a.fish": "set -gx ACTIVE $CONDA_PREFIX\n",
    "etc/conda/deactivate.d/a.fish": "set -e ACTIVE\n",
    "etc/conda/activate.d/a.csh": 'setenv ACTIVE "$CONDA_PREFIX"\n',
    "etc/conda/deactivate.d/a.csh": "unsetenv ACTIVE\n",
}
CLEAN = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/root", "CONDA_PREFIX": "/was"}
SHELLS = [("fish", "activate.fish"), ("tcsh", "activate.csh"), ("csh", "activate.csh")]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A conda environment, unpacked in a folder with a blank in its name."""
    reference = publish(tmp_path / "layout", [PYTHON, CONDA])
    export(reference, str(tmp_path / "env.tar.gz"), store=Store(str(tmp_path / "store")))
    folder = tmp_path / "un packed"
    folder.mkdir()
    subprocess.run(["tar", "-xzf", tmp_path / "env.tar.gz", "-C", folder], check=True)
    return folder


def run(shell: str, script: str) -> subprocess.CompletedProcess[str]:
    options = ["-f", "-c"] if shell == "csh" else ["-c"]
    command = [need(shell if shell != "csh" else "csh"), *options, script]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=CLEAN)


@pytest.mark.parametrize(("shell", "name"), SHELLS)
def test_activation_sets_and_deactivation_restores(place: Path, shell: str, name: str) -> None:
    show = "env | grep -E '^(PATH|CONDA_PREFIX|ACTIVE|GREETING)=' | sort"

    ran = run(shell, f"source '{place}/bin/{name}'\n{show}\ntool a\ndeactivate\n{show}\n")

    assert ran.stdout.splitlines() == [
        f"ACTIVE={place}",
        f"CONDA_PREFIX={place}",
        f"GREETING={GREETING}",
        f"PATH={place}/bin:{CLEAN['PATH']}",
        "tool ['a']",
        "CONDA_PREFIX=/was",
        f"PATH={CLEAN['PATH']}",
    ]
    assert ran.stderr == ""


@pytest.mark.parametrize(("shell", "name"), SHELLS)
def test_an_environment_that_was_moved_works_in_its_new_place(place: Path, shell: str, name: str) -> None:
    run(shell, f"source '{place}/bin/{name}'")
    moved = place.rename(place.parent / "moved")

    ran = run(shell, f"source '{moved}/bin/{name}'\ntool a\n")

    assert (ran.stdout, ran.stderr) == ("tool ['a']\n", "")
    assert f"{moved}/bin/python" in (moved / "bin/tool").read_text()


@pytest.mark.parametrize(("shell", "name"), SHELLS)
def test_a_folder_without_an_environment_is_named_and_the_shell_goes_on(place: Path, shell: str, name: str) -> None:
    (place / ".lamella/prefix").unlink()

    ran = run(shell, f"source '{place}/bin/{name}'\necho on\n")

    assert ran.stdout == "on\n"
    assert f"no environment is at {place}: run bin/conda-unpack" in ran.stderr


@pytest.mark.parametrize("name", ["conda-unpack", "lamella-unpack"])
def test_unpacking_has_two_names(place: Path, name: str) -> None:
    subprocess.run([place / "bin" / name, "--verbose"], check=True)

    assert (place / ".lamella/prefix").read_text() == f"{place}\n"
    assert (
        f"usage: {name} [PREFIX]"
        in subprocess.run([place / "bin" / name, "--version"], check=False, capture_output=True, text=True).stderr
    )
