"""The user's folders, also of a user without any."""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import pytest

from lamella.layers.settings import homes

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGER = 54321


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a user without an entry in /etc/passwd."""
    with pytest.raises(KeyError):
        pwd.getpwuid(STRANGER)
    monkeypatch.setattr(os, "getuid", lambda: STRANGER)


def test_the_folders_are_those_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert (homes.home(), homes.cache_folder(), homes.config_folder(), homes.runtime_folder()) == (
        "/home/ada", "/home/ada/.cache", "/home/ada/.config", "",
    )  # fmt: skip
    for name in ("CACHE_HOME", "CONFIG_HOME", "RUNTIME_DIR"):
        monkeypatch.setenv(f"XDG_{name}", f"/{name}")
    assert (homes.cache_folder(), homes.config_folder(), homes.runtime_folder()) == (
        "/CACHE_HOME", "/CONFIG_HOME", "/RUNTIME_DIR",
    )  # fmt: skip


@pytest.mark.parametrize("value", ["", "relative", "./here", "~"])
@pytest.mark.parametrize("folder", [homes.cache_folder, homes.config_folder, homes.runtime_folder])
def test_relative_folders_are_ignored(
    folder: Callable[[], str], value: str, homeless: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, value)
    assert homes.home() == folder() == ""


@pytest.mark.parametrize("value", [None, "", "relative"])
def test_without_a_usable_variable_the_home_is_that_of_the_password_file(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("HOME", value)
    assert homes.home() == pwd.getpwuid(os.getuid()).pw_dir


def test_a_tilde_is_expanded_if_there_is_a_home(homeless: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert homes.expanded("~/data") == "~/data"
    monkeypatch.setenv("HOME", "/home/ada/")
    assert [homes.expanded(path) for path in ("~", "~/data", "a/~", "~root/x", "")] == [
        "/home/ada", "/home/ada/data", "a/~", f"{pwd.getpwnam('root').pw_dir}/x", "",
    ]  # fmt: skip
    monkeypatch.setenv("HOME", "/")
    assert [homes.expanded(path) for path in ("~", "~/data")] == ["/", "/data"]
