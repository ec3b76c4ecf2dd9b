"""The environment of a command that names none."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.prefix.active import active_prefix, folder_id
from support.installed import venv

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return venv(tmp_path_factory.mktemp("prefix") / "env")


@pytest.fixture(autouse=True)
def no_other_environments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let no project of this machine's user be found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("UV_PROJECT_ENVIRONMENT", "POETRY_CACHE_DIR", "POETRY_VIRTUALENVS_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a folder below the home."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def fake(folder: Path, answer: str = "exit 1", *, settings: str = "") -> Path:
    """A prefix whose python runs `answer`, with `settings` as its pyvenv.cfg."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    if settings:
        (folder / "pyvenv.cfg").write_text(settings)
    return folder


def test_virtual_env_stands_before_conda_prefix(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path))
    monkeypatch.setenv("VIRTUAL_ENV", str(made))
    assert active_prefix() == str(made)


def test_a_relative_virtual_env_is_of_the_current_folder(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made.parent)
    monkeypatch.setenv("VIRTUAL_ENV", "env/")
    assert active_prefix() == str(made)


def test_a_variable_that_names_a_missing_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "gone"))
    with pytest.raises(NotAnEnvironment, match=r"^VIRTUAL_ENV=.*gone: no such folder"):
        active_prefix()


def test_uv_run_with_a_package_means_the_project_s_environment(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`uv run --with lamella lamella push` activates a temporary environment over the project's."""
    fake(project / ".venv", settings="home = /usr/bin\n")
    overlay = fake(tmp_path / "overlay", settings=f"home = /usr/bin\nextends-environment = {project}/.venv\n")
    monkeypatch.setenv("VIRTUAL_ENV", str(overlay))
    assert active_prefix() == str(project / ".venv")


@pytest.mark.parametrize("folder", [".venv", ".pixi/envs/default"])
@pytest.mark.parametrize("below", [".", "src/pkg"])
def test_the_environment_of_this_folder_or_a_project_above_it_stands_before_path(
    folder: str, below: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(project / folder)
    (project / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / below)
    assert active_prefix() == str(project / folder)


def test_the_nearest_environment_is_the_project_s(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(project / ".venv")
    fake(project / "member" / ".venv")
    (project / "member" / "src").mkdir()
    monkeypatch.chdir(project / "member" / "src")
    assert active_prefix() == str(project / "member" / ".venv")


def test_the_search_ends_at_the_top_of_the_repository(
    made: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(project / ".venv")
    (project / "other" / ".git").mkdir(parents=True)
    monkeypatch.chdir(project / "other")
    monkeypatch.setenv("PATH", str(made / "bin"))
    assert active_prefix() == str(made)


def test_the_search_ends_below_the_home(
    made: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / ".venv")
    monkeypatch.setenv("PATH", str(made / "bin"))
    assert active_prefix() == str(made)
    monkeypatch.chdir(tmp_path)
    assert active_prefix() == str(tmp_path / ".venv")


def test_the_search_ends_at_a_folder_that_others_can_write(
    made: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can make a .venv in /tmp, whose python would run as this user."""
    fake(project / ".venv")
    (project / "mine").mkdir()
    monkeypatch.chdir(project / "mine")
    monkeypatch.setenv("PATH", str(made / "bin"))
    assert active_prefix() == str(project / ".venv")
    project.chmod(0o1777)
    assert active_prefix() == str(made)


def test_a_project_s_environment_has_the_place_that_uv_was_given(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(project / ".venv")
    fake(project / "elsewhere")
    monkeypatch.setenv("UV_PROJECT_ENVIRONMENT", "elsewhere")
    assert active_prefix() == str(project / ".venv")
    (project / "pyproject.toml").write_text("[project]\nname = 'demo'\n")
    assert active_prefix() == str(project / "elsewhere")


def test_the_environment_that_pdm_chose_is_found(made: Path, project: Path) -> None:
    (project / ".pdm-python").write_text(f"{made}/bin/python\n")
    assert active_prefix() == str(made)


def test_a_system_python_that_pdm_chose_is_not_a_project_s_environment(
    made: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".pdm-python").write_text("/usr/bin/python3\n")
    monkeypatch.setenv("PATH", str(made / "bin"))
    assert active_prefix() == str(made)


def test_the_environment_in_poetry_s_cache_is_found_by_the_project_s_path(project: Path, tmp_path: Path) -> None:
    assert folder_id("/srv/demo-app") == "a1Isy_2P", "poetry 2.5 names it demo-app-a1Isy_2P-py3.11"
    cache = tmp_path / ".cache/pypoetry/virtualenvs"
    kept = fake(cache / f"demo-app-{folder_id(str(project))}-py3.11")
    (project / "pyproject.toml").write_text("[project]\nname = 'demo-app'\n")
    assert active_prefix() == str(kept)
    fake(cache / f"demo-app-{folder_id(str(project))}-py3.12")
    with pytest.raises(NotAnEnvironment, match=r"poetry has 2 environments for this project; name one, such as \$\("):
        active_prefix()


@pytest.mark.parametrize("variable", ["", "HATCH_DATA_DIR"])
def test_hatch_s_default_environment_is_found_by_the_project_s_path(
    project: Path, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "kept" if variable else tmp_path / ".local/share/hatch"
    for name in ("HATCH_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, str(data))
    (project / "pyproject.toml").write_text("[project]\nname = 'Demo_App'\n")
    # As hatch 1.18 lays them out.
    below = data / "env/virtual/demo-app" / folder_id(str(project))
    fake(below / "hatch-test.py3.12")
    made = fake(below / "demo-app")
    fake(data / "env/virtual/demo-app" / folder_id("/srv/demo-app") / "demo-app")
    assert active_prefix() == str(made)


@pytest.mark.parametrize("variable", ["", "WORKON_HOME"])
def test_pipenv_s_environment_is_found_by_the_project_that_it_names(
    project: Path, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept" if variable else tmp_path / ".local/share/virtualenvs"
    monkeypatch.delenv("WORKON_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    if variable:
        monkeypatch.setenv(variable, str(kept))
    (project / "Pipfile").write_text("")
    # Named as pipenv 2026.10 names it; its name is not looked at.
    made = fake(kept / "demo-Vx-jTUo5")
    (made / ".project").write_text(str(project))
    other = fake(kept / "other-Vx-jTUo6")
    (other / ".project").write_text(f"{tmp_path}\n")
    assert active_prefix() == str(made)
    (other / ".project").write_text(f"{project}\n")
    with pytest.raises(NotAnEnvironment, match=r"pipenv has 2 environments for this project; name one, such as \$\("):
        active_prefix()


def test_conda_s_base_stands_behind_a_project_s_environment(
    made: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = fake(tmp_path / "conda")
    monkeypatch.setenv("CONDA_PREFIX", str(base))
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
    assert active_prefix() == str(base)
    fake(project / ".venv")
    assert active_prefix() == str(project / ".venv")
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "work")
    assert active_prefix() == str(base)


def test_the_last_one_is_that_of_python_on_path(made: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(made / "bin"))
    assert active_prefix() == str(made)


def test_a_shim_on_path_is_asked_for_the_prefix(
    made: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "shims", f'exec {made}/bin/python "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}/shims/bin:/usr/bin:/bin")
    assert active_prefix() == str(made)


def test_the_environment_that_lamella_runs_in_is_never_found_on_path(
    made: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(made))
    monkeypatch.setenv("PATH", str(made / "bin"))
    with pytest.raises(NotAnEnvironment, match=f"the environment that Lamella itself runs in.* REFERENCE {made} for"):
        active_prefix()
    # Activated, or in the project, it is the user's, with Lamella among its packages.
    monkeypatch.setenv("VIRTUAL_ENV", str(made))
    assert active_prefix() == str(made)
    monkeypatch.delenv("VIRTUAL_ENV")
    (project / ".venv").symlink_to(made)
    assert active_prefix() == str(project / ".venv")


def test_conda_s_base_with_lamella_in_it_is_named_or_not_shipped(
    made: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", str(made))
    monkeypatch.setenv("CONDA_PREFIX", str(made))
    monkeypatch.setenv("CONDA_DEFAULT_ENV", "base")
    with pytest.raises(NotAnEnvironment, match=f"^CONDA_PREFIX={made}: the environment that Lamella itself runs in"):
        active_prefix()


@pytest.mark.parametrize("receipt", ["uv-receipt.toml", "pipx_metadata.json"])
def test_lamella_s_own_tool_environment_is_never_found_by_accident(
    receipt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = fake(tmp_path / "tool")
    (tool / receipt).write_text("")
    monkeypatch.setattr(sys, "prefix", str(tool))
    monkeypatch.setenv("VIRTUAL_ENV", str(tool))
    with pytest.raises(NotAnEnvironment, match="Lamella's own tool environment; name the environment"):
        active_prefix()


def test_without_any_environment_the_message_is_one_sentence(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(NotAnEnvironment, match="no environment is active, in this project or on PATH; name the folder"):
        active_prefix()
