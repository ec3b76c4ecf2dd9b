"""A user without a home, as containers run with a number alone: nothing is written to the working directory."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from lamella.cli.configuration import files
from lamella.cli.errors import UsageError
from lamella.cli.main import main
from lamella.layers import LayersError, Store
from support.engines import need_root
from support.people import NOBODY, as_user, folder_of
from support.published import publish
from support.registry_simulator import PASSWORD, USER, RegistrySimulator

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=[None, "", "relative"], ids=["unset", "empty", "relative"])
def here(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory of a user whose variables name no folder."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        if request.param is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, request.param)
    for name in ("DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name, raising=False)
    # No entry in /etc/passwd has this number.
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int) -> str:
    """Run a verb, and return what it printed to stderr."""
    assert main([*arguments]) == code
    return capsys.readouterr().err


def test_login_saves_no_password_in_the_working_directory(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulator = RegistrySimulator()
    simulator.auth = "basic"
    with simulator.serving() as registry:
        monkeypatch.setattr("sys.stdin", io.StringIO(PASSWORD))
        error = printed(capsys, "login", registry.host, "--username", USER, code=4)
        assert registry.requests == []
    assert error == ("lamella: no home folder for credentials; set HOME, or DOCKER_CONFIG to a folder of your own\n")
    assert os.listdir(here) == []


def test_a_registry_is_asked_without_credentials(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RegistrySimulator().serving() as registry:
        repository = f"{registry.host}/team/envs"
        remark = f"no environments in {repository}; --all lists every tag\n"
        assert printed(capsys, "tags", repository, code=0) == remark
        assert registry.requests
    assert os.listdir(here) == []


@pytest.fixture
def as_root() -> None:
    """A test of root: a store of the user who runs the tests is another's for the user without a home."""
    need_root()


@pytest.mark.root
@pytest.mark.usefixtures("as_root")
def test_a_store_needs_a_name(here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
    error = printed(capsys, "pull", reference, code=1)
    assert error == "lamella: no home folder for a store; set HOME, or LAMELLA_STORE to a folder of your own\n"
    assert os.listdir(here) == []
    assert main(["pull", "--quiet", "--store", str(tmp_path / "store"), reference]) == 0
    assert os.listdir(here) == []


def test_a_cache_needs_a_name(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = printed(capsys, "gc", "--layer-cache", "--all", "--yes", code=1)
    assert error == "lamella: no home folder for the cache; set HOME, or LAMELLA_CACHE to a folder of your own\n"
    assert os.listdir(here) == []


@pytest.mark.root
@pytest.mark.parametrize("program", ["command", "library"])
def test_another_user_s_home_is_named_with_what_to_set(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need_root()
    with folder_of(os.geteuid()) as home:
        settings = home / "lamella"
        settings.mkdir(mode=0o700)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
        monkeypatch.delenv("LAMELLA_STORE", raising=False)
        with pytest.raises((UsageError, LayersError)) as caught:
            as_user(NOBODY, lambda: files(".", set()) if program == "command" else Store())
    assert str(caught.value) == (
        f"{settings}/config.toml: Permission denied; set HOME to this user's home, or allow this user to read the file"
    )
