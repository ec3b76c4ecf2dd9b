from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from lamella.layers.running.activation import command, variables
from support.trees import write

if TYPE_CHECKING:
    from pathlib import Path


def test_the_environments_programs_are_found_first(tmp_path: Path) -> None:
    after = variables(str(tmp_path), {"PATH": "/usr/bin:/bin", "HOME": "/home/me"})

    assert after == {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": "/home/me", "VIRTUAL_ENV": str(tmp_path)}


def test_the_environment_that_was_active_is_left(tmp_path: Path) -> None:
    before = {
        "PATH": "/home/me/.venv/bin:/usr/bin",
        "VIRTUAL_ENV": "/home/me/.venv",
        "VIRTUAL_ENV_PROMPT": "(mine)",
        "PYTHONHOME": "/usr",
        "PYTHONPATH": "/home/me/.venv/lib/python3.12/site-packages:/home/me/src",
    }

    after = variables(str(tmp_path), before)

    assert after == {"PATH": f"{tmp_path}/bin:/usr/bin", "VIRTUAL_ENV": str(tmp_path), "PYTHONPATH": "/home/me/src"}


def test_a_path_to_modules_that_was_the_left_environments_alone_is_not_set_at_all(tmp_path: Path) -> None:
    after = variables(str(tmp_path), {"PATH": "", "CONDA_PREFIX": "/conda", "PYTHONPATH": "/conda/x"})

    assert "PYTHONPATH" not in after


def test_a_conda_environment_is_activated_as_conda_does(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "conda-meta/state": '{"version": 1, "env_vars": {"A": "state", "B": "b"}}',
            "etc/conda/env_vars.d/x.json": '{"A": "package", "C": "c", "D": 1}',
        },
    )

    after = variables(str(tmp_path), {"PATH": "/bin", "CONDA_SHLVL": "3", "CONDA_PROMPT_MODIFIER": "(base)"})

    assert after == {
        "PATH": f"{tmp_path}/bin:/bin",
        "CONDA_PREFIX": str(tmp_path),
        "CONDA_DEFAULT_ENV": str(tmp_path),
        "CONDA_SHLVL": "1",
        "A": "state",
        "B": "b",
        "C": "c",
    }


def test_a_broken_state_file_does_not_stop_the_activation(tmp_path: Path) -> None:
    write(tmp_path, {"conda-meta/state": "{"})

    assert variables(str(tmp_path), {"PATH": "/bin"})["CONDA_PREFIX"] == str(tmp_path)


def test_without_scripts_no_shell_stands_before_the_command(tmp_path: Path) -> None:
    assert command(str(tmp_path), ["python", "-V"]) == ["python", "-V"]


def test_scripts_are_sourced_by_name_and_the_command_gets_its_arguments(tmp_path: Path) -> None:
    prefix = write(
        tmp_path / "it's here",
        {
            "etc/conda/activate.d/2.sh": "export X=$X-second\n",
            "etc/conda/activate.d/1 a.sh": "export X=first\n",
            "etc/conda/activate.d/3.fish": "exit 1\n",
        },
    )

    ran = subprocess.run(
        command(str(prefix), ["sh", "-c", 'echo "$X|$1|$2"', "sh", "a b", "$X"]),
        check=True,
        capture_output=True,
        text=True,
    )

    assert ran.stdout == "first-second|a b|$X\n"
