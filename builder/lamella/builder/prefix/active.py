"""Find the environment to use if none is named: the active one, the project's, or that of `python` on PATH."""

from __future__ import annotations

import base64
import glob
import hashlib
import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from lamella.builder.errors import NotAnEnvironment
from lamella.builder.files.small_file import read_text
from lamella.builder.prefix.locate import ADVICE, configuration, locate
from lamella.layers.settings.homes import cache_folder, data_folder, expanded, home

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lamella.builder.prefix.locate import LocatedPrefix

_HERE = (".venv", os.path.join(".pixi", "envs", "default"))
_TOOL_RECEIPTS = ("uv-receipt.toml", "pipx_metadata.json")
_REPOSITORIES = (".git", ".hg", ".jj")
_CONDA_BASE = frozenset({"base", "root"})
_OVERLAYS = 8
"""Environments of `uv run --with` inside one another that are followed."""


def active_prefix() -> str:
    """Prefix of the environment of a command without an argument.

    VIRTUAL_ENV; CONDA_PREFIX; the environment of the project in the working directory or in the nearest
    folder above it that has one; conda's `base` if it is active; the prefix of `python` on PATH, unless
    Lamella itself runs in it. Raises `NotAnEnvironment` without another one.
    """
    return active().prefix


def active() -> LocatedPrefix:
    """Locate the environment of `active_prefix`."""
    if named := os.environ.get("VIRTUAL_ENV"):
        return _not_the_tool(_below_overlays(named), "VIRTUAL_ENV=")
    conda = os.environ.get("CONDA_PREFIX")
    # Shells activate it at their start: then it is like a system's Python, and a project's environment goes first.
    is_base = os.environ.get("CONDA_DEFAULT_ENV") in _CONDA_BASE
    if conda and not is_base:
        return _not_the_tool(conda, "CONDA_PREFIX=")
    for folder in _folders():
        if found := _of_project(folder):
            return locate(found)
    if conda:
        return _not_our_own(conda, "CONDA_PREFIX=")
    return _not_our_own(_on_path(), "python on PATH: ")


def _not_the_tool(named: str, how: str) -> LocatedPrefix:
    """Refuse Lamella's environment if `uv tool` or pipx made it. Any other is the user's, with Lamella among its packages."""
    found = locate(named, how=how)
    if _is_own(found) and any(os.path.exists(os.path.join(found.prefix, receipt)) for receipt in _TOOL_RECEIPTS):
        raise NotAnEnvironment(
            f"{how}{found.prefix}: Lamella's own tool environment; name the environment that you want to ship"
        )
    return found


def _not_our_own(named: str, how: str) -> LocatedPrefix:
    """Refuse the environment that Lamella runs in: it is on PATH for the command's sake."""
    found = locate(named, how=how)
    if _is_own(found):
        raise NotAnEnvironment(
            f"{how}{found.prefix}: the environment that Lamella itself runs in; name the environment to ship, "
            f"such as lamella push REFERENCE {found.prefix} for this one, or activate it"
        )
    return found


def _is_own(found: LocatedPrefix) -> bool:
    return os.path.realpath(found.prefix) == os.path.realpath(sys.prefix)


def _below_overlays(named: str) -> str:
    """Follow `uv run --with`, which activates a temporary environment over the project's."""
    for _ in range(_OVERLAYS):
        below = configuration(named).get("extends-environment")
        if not below:
            break
        named = below
    return named


def _folders() -> Iterator[str]:
    """The working directory and the folders above it, up to the top of its repository, as git and uv walk.

    Ends below the user's home, at another file system, and at a folder in which other users can make an
    environment: its programs would run as this user.
    """
    folder = os.getcwd()
    here = os.stat(folder)
    yield folder
    while not _is_top(folder):
        folder = os.path.dirname(folder)
        seen = os.stat(folder)
        others = seen.st_mode & 0o002 or seen.st_uid not in (0, here.st_uid)
        if folder == home() or seen.st_dev != here.st_dev or others:
            return
        yield folder


def _is_top(folder: str) -> bool:
    if folder in (home(), os.path.dirname(folder)):
        return True
    return any(os.path.lexists(os.path.join(folder, name)) for name in _REPOSITORIES)


def _of_project(folder: str) -> str:
    """Environment of the project in `folder`, as uv, pixi, pdm, poetry, hatch and pipenv keep it; empty without one."""
    is_project = os.path.isfile(os.path.join(folder, "pyproject.toml"))
    named = os.environ.get("UV_PROJECT_ENVIRONMENT") if is_project else ""
    for name in (named, *_HERE):
        if name and os.path.isdir(os.path.join(folder, name, "bin")):
            return os.path.join(folder, name)
    found = _of_pdm(folder)
    if is_project:
        found = found or _of_poetry(folder) or _of_hatch(folder)
    return found or _of_pipenv(folder)


def _of_pdm(folder: str) -> str:
    """Environment of the interpreter that pdm uses for the project, if it is a virtual environment."""
    try:
        python = read_text(os.path.join(folder, ".pdm-python"), 1 << 12).strip()
    except OSError:
        return ""
    prefix = os.path.dirname(os.path.dirname(os.path.join(folder, python)))
    return prefix if python and configuration(prefix) else ""


def _of_poetry(folder: str) -> str:
    """The project's environment in poetry's cache; empty without one."""
    caches = os.environ.get("POETRY_CACHE_DIR") or os.path.join(cache_folder(), "pypoetry")
    environments = os.environ.get("POETRY_VIRTUALENVS_PATH") or os.path.join(caches, "virtualenvs")
    if not os.path.isabs(environments):
        return ""
    found = sorted(glob.glob(os.path.join(glob.escape(environments), f"*-{folder_id(folder)}-py*")))
    return _only(found, folder, "poetry", "$(poetry env info --path)")


def _of_hatch(folder: str) -> str:
    """The project's default environment in hatch's data folder; empty without one."""
    data = os.environ.get("HATCH_DATA_DIR") or os.path.join(data_folder(), "hatch")
    if not os.path.isabs(data):
        return ""
    found = glob.glob(os.path.join(glob.escape(data), "env", "virtual", "*", folder_id(folder), "*", "bin"))
    # <project's name>/<hash of its folder>/<environment's name>, which is the project's for the default one.
    parts = [os.path.dirname(each).split(os.sep) for each in sorted(found)]
    return _only([os.sep.join(each) for each in parts if each[-1] == each[-3]], folder, "hatch", "$(hatch env find)")


def _of_pipenv(folder: str) -> str:
    """The environment that pipenv keeps for the project, by the `.project` file in it; empty without one."""
    if not os.path.isfile(os.path.join(folder, "Pipfile")):
        return ""
    environments = expanded(os.environ.get("WORKON_HOME") or os.path.join(data_folder(), "virtualenvs"))
    if not os.path.isabs(environments):
        return ""
    notes = sorted(glob.glob(os.path.join(glob.escape(environments), "*", ".project")))
    found = [os.path.dirname(note) for note in notes if _leads_to(note, folder)]
    return _only(found, folder, "pipenv", "$(pipenv --venv)")


def _leads_to(note: str, folder: str) -> bool:
    try:
        named = read_text(note, 1 << 12).strip()
        return bool(named) and os.path.samefile(named, folder)
    except OSError:
        return False


def _only(found: Sequence[str], folder: str, tool: str, example: str) -> str:
    if len(found) > 1:
        raise NotAnEnvironment(
            f"{folder}: {tool} has {len(found)} environments for this project; name one, such as {example}"
        )
    return found[0] if found else ""


def folder_id(folder: str) -> str:
    """Name of a project's folder in the names of its environments, by poetry and by hatch.

    Source: poetry, `EnvManager.generate_env_name`; hatch, `utils/fs.py`, `Path.id`.
    """
    path = os.path.normcase(os.path.realpath(folder)).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(path).digest()).decode()[:8]


def _on_path() -> str:
    for name in ("python", "python3"):
        found = shutil.which(name)
        if not found:
            continue
        try:
            # pyenv's and others' shims are scripts: only the interpreter that they start knows its prefix.
            done = subprocess.run(
                [found, "-I", "-B", "-c", "import sys; print(sys.prefix)"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        if not done.returncode and done.stdout.strip():
            return done.stdout.strip()
    raise NotAnEnvironment(f"no environment is active, in this project or on PATH; {ADVICE}")
