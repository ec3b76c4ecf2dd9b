"""The command and a notebook of the same user have the same store and the same cache."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from lamella.builder import LayerCache
from lamella.cli.main import main
from lamella.layers import LayersError, Store
from support.homes import fresh_home
from support.policies import administer, user_file

if TYPE_CHECKING:
    from pathlib import Path

HERE = {"cache": "LAMELLA_CACHE", "store": "LAMELLA_STORE"}
CASES = {
    "default": ({}, {}, {}, ".cache/lamella"),
    "machine": ({}, {}, {"store": "/m/s", "cache": "/m/c"}, "/m"),
    "user": ({}, {"store": "/u/s", "cache": "/u/c"}, {"store": "/m/s", "cache": "/m/c"}, "/u"),
    "relative": ({}, {"store": "../s", "cache": "../c"}, {}, ".config"),
    "home": ({}, {"store": "~/s", "cache": "~/c"}, {}, ""),
    "turned off": ({}, {"store": "", "cache": ""}, {"store": "/m/s", "cache": "/m/c"}, ".cache/lamella"),
    "variable": ({"store": "/v/s", "cache": "/v/c"}, {"store": "/u/s", "cache": "/u/c"}, {}, "/v"),
    "home in a variable": ({"store": "~/s", "cache": "~/c"}, {"store": "/u/s", "cache": "/u/c"}, {}, ""),
    "empty variable": ({"store": "", "cache": ""}, {"store": "/u/s", "cache": "/u/c"}, {}, ".cache/lamella"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, a project that may not name a store."""
    home = fresh_home(tmp_path, monkeypatch)
    for variable in (*HERE.values(), "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    assert os.environ["HOME"] == str(home)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() or 1)  # root's store is the machine's
    monkeypatch.chdir(tmp_path)
    return home


@pytest.mark.parametrize("case", CASES)
def test_python_and_the_command_use_the_same_folders(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    variables, user, machine, expected = CASES[case]
    for name, value in variables.items():
        monkeypatch.setenv(HERE[name], value)
    written = user_file(tmp_path, monkeypatch, **user)
    monkeypatch.delenv("XDG_CONFIG_HOME")
    (place / ".config").mkdir(exist_ok=True)
    written.parent.rename(place / ".config/lamella")
    administer(monkeypatch, tmp_path, **machine)
    root = str(place / expected)
    names = ("store", "") if expected.endswith("lamella") else ("s", "c")
    found = (Store().path, os.path.dirname(LayerCache().path))
    assert found == tuple(os.path.join(root, name).rstrip("/") for name in names)
    assert main(["df", "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["store"]["path"], shown["cache"]["path"]) == found


def test_a_flag_with_the_home_that_no_shell_expanded_names_a_folder_of_the_home(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("s", "c"):
        (place / name).mkdir()
    assert main(["df", "--json", "--store=~/s", "--cache=~/c"]) == 0
    shown = json.loads(capfd.readouterr().out)
    assert (shown["store"]["path"], shown["cache"]["path"]) == (f"{place}/s", f"{place}/c")


@pytest.mark.parametrize(
    ("text", "problem"),
    [("store = 1", "store is not a string"), ("store = [", "invalid TOML"), ("store = '\xff", "invalid TOML")],
)
def test_a_settings_file_that_cannot_be_used_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, problem: str
) -> None:
    path = user_file(tmp_path, monkeypatch, text)
    with pytest.raises(LayersError, match=rf"{path}: {problem}.*; correct or remove it"):
        Store()
    assert place


def test_a_fifo_in_place_of_the_settings_stops_no_program(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = user_file(tmp_path, monkeypatch)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LayersError, match="not a regular file; correct or remove it"):
        LayerCache()
    assert place
