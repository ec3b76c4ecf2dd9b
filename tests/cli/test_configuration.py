"""Settings in files: what a project may set, what the user sets, and what no user can weaken."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from lamella.cli.configuration import PROJECT
from lamella.cli.main import main
from lamella.cli.settings import EVERY
from lamella.layers import sign
from support.keys import key_pair
from support.policies import administer, user_file
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path

VALUES = {
    "ca-file": "'ca.pem'", "cache": "'.cache'", "elsewhere": "true", "hosts-dir": "'hosts'", "insecure": "true", "local": "'..'",
    "method": "'copies'", "node-image": "'r.example/node'", "require-identity": "'reference'", "require-signature": "'key.pub'", "store": "'.store'",
}  # fmt: skip
"""What a project may not set, with a valid value."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the user's settings."""
    return user_file(tmp_path, monkeypatch).parent


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A reference that prints `published` when its tool runs."""
    monkeypatch.setenv("LAMELLA_STORE", str(tmp_path / "node"))
    return publish(tmp_path / "layout", [{"bin/tool*": "#!/bin/sh\necho published\n"}])


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cloned repository as working directory."""
    folder = tmp_path / "cloned"
    (folder / "src").mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("who", ["user", "project"])
def test_only_the_machine_s_administrator_names_a_shared_group(
    repository: Path, home: Path, reference: str, capfd: pytest.CaptureFixture[str], who: str
) -> None:
    if who == "user":
        (home / "config.toml").write_text('shared-group = "gpu"\n')
    else:
        (repository / "pyproject.toml").write_text('[tool.lamella]\nshared-group = "gpu"\n')
    assert main(["pull", reference]) == 2
    assert "shared-group" in capfd.readouterr().err


def test_a_project_may_set_what_shapes_the_build_and_nothing_else() -> None:
    assert {setting.name for setting in EVERY} - PROJECT == VALUES.keys()


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("verb", ["pull", "run"])
def test_a_cloned_repository_sets_neither_trust_nor_places(
    key: str, verb: str, repository: Path, reference: str, home: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (repository / "pyproject.toml").write_text(f"[tool.lamella]\n{key} = {VALUES[key]}\n")
    command = ["--", "tool"] if verb == "run" else []
    if verb == "run":
        monkeypatch.chdir(repository / "src")
    assert main([verb, reference, *command]) == (125 if verb == "run" else 2)
    printed = capfd.readouterr()
    assert printed.err == (
        f"lamella: {repository}/pyproject.toml: {key}: not a project's setting; set it in {home}/config.toml, "
        "or in /etc/lamella/config.toml for all users\n"
    )
    assert printed.out == ""
    assert sorted(os.listdir(repository)) == ["pyproject.toml", "src"]


@pytest.mark.slow
def test_a_doctored_store_in_a_cloned_repository_does_not_run(
    repository: Path, reference: str, tmp_path: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    private, public = key_pair(tmp_path)
    sign(reference, private)
    store = repository / ".venv-cache"
    assert main(["pull", "--quiet", "--store", str(store), reference]) == 0
    (tool,) = store.glob("layers/*/*/tree/opt/env/bin/tool")
    tool.write_text("#!/bin/sh\necho intruded\n")
    (repository / "pyproject.toml").write_text("[tool.lamella]\nstore = '.venv-cache'\n")
    run = ["run", "--json", "--quiet", "--require-signature", public, reference, "--", "tool"]
    assert main(run) == 125
    (repository / "pyproject.toml").unlink()
    assert main(run) == 0
    printed = capfd.readouterr().out
    assert "intruded" not in printed
    assert printed.endswith("\npublished\n")


def test_a_user_sets_everything_in_a_file_of_their_own(
    repository: Path,
    reference: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("LAMELLA_STORE")
    _, public = key_pair(tmp_path)
    # Relative paths are relative to the file.
    file = user_file(tmp_path, monkeypatch, store="mine", require_signature="../../ours.pub")
    assert main(["pull", reference]) == 9
    assert "not signed; sign it with lamella push --sign KEY" in capsys.readouterr().err
    sign(reference, public.replace(".pub", ".pem"))
    assert main(["pull", reference]) == 0
    assert (file.parent / "mine" / "layers").is_dir()


def test_the_project_s_file_precedes_the_user_s_and_that_the_machine_s(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "max-layers = '{}'"
    # `push` reads it before anything else.
    command = ["push", f"oci:{tmp_path}/layout:v1", "/nonexistent"]

    def read() -> str:
        assert main(command) == 2
        return capsys.readouterr().err.removeprefix("lamella: ").strip()

    machine = administer(monkeypatch, tmp_path, text.format("machine"))
    assert read() == f"{machine}: max-layers machine: not a whole number"
    user = user_file(tmp_path, monkeypatch, text.format("user"))
    assert read() == f"{user}: max-layers user: not a whole number"
    (repository / "pyproject.toml").write_text(f"[tool.lamella]\n{text.format('project')}\n")
    assert read() == f"{repository}/pyproject.toml: max-layers project: not a whole number"
    monkeypatch.setenv("LAMELLA_MAX_LAYERS", "variable")
    assert read() == "LAMELLA_MAX_LAYERS variable: not a whole number"
    command += ["--max-layers", "flag"]
    assert read() == "--max-layers flag: not a whole number"


@pytest.mark.parametrize("included", ["/etc/hostname", "../secret", "src/../../secret", "link", "link/../secret", "."])
def test_a_project_includes_nothing_from_outside_its_folder(
    included: str, repository: Path, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").mkdir()
    (repository / "link").symlink_to(tmp_path / "secret")
    (repository / "pyproject.toml").write_text(f"[tool.lamella]\ninclude = ['{included}']\n")
    assert main(["scan", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"lamella: {repository}/pyproject.toml: include {included}: not in the project's folder; "
        "use the flag --include for it\n"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("stores = '/x'", "unknown key 'stores'; use base, "),
        ("allowed-registries = ['ghcr.io']", "allowed-registries: an administrator's setting; set it in /etc/lamella"),
        ("insecure = 'perhaps'", "insecure perhaps: not a boolean"),
        ("insecure", "invalid TOML: "),
        ("a = " + "[" * 5000, "invalid TOML: "),
    ],
)
def test_an_invalid_user_s_file_is_reported(
    text: str, problem: str, repository: Path, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = user_file(tmp_path, monkeypatch, text)
    assert main(["pull", reference]) == 2
    assert capsys.readouterr().err.startswith(f"lamella: {path}: {problem}")


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_file_that_is_not_a_file_stops_no_project_and_is_an_error_of_the_user_s(
    kind: str, repository: Path, reference: str, tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make = os.mkfifo if kind == "fifo" else os.mkdir
    make(repository / "pyproject.toml")
    assert main(["pull", reference]) == 0
    (home / "config.toml").unlink()
    make(home / "config.toml")
    assert main(["pull", reference]) == 2
    assert f"lamella: {home}/config.toml: " in capsys.readouterr().err


@pytest.mark.parametrize("way", ["flag", "empty flag", "variable", "empty variable", "user's file"])
def test_an_administrator_s_requirement_is_not_weakened(
    way: str, repository: Path, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _, required = key_pair(tmp_path, "required")
    own, public = key_pair(tmp_path, "own")
    sign(reference, own)
    administer(monkeypatch, tmp_path, require_signature=required, allowed_registries=["oci:"], insecure=False)
    user_file(tmp_path, monkeypatch)
    flags: list[str] = []
    if way == "flag":
        flags = ["--require-signature", public, "--insecure"]
    elif way == "empty flag":
        flags = ["--require-signature", "", "--insecure"]
    elif way == "user's file":
        user_file(tmp_path, monkeypatch, require_signature=public, insecure=True)
    else:
        monkeypatch.setenv("LAMELLA_REQUIRE_SIGNATURE", public if way == "variable" else "")
        monkeypatch.setenv("LAMELLA_INSECURE", "1")
    for verb in ("pull", "run", "inspect"):
        command = ["--", "tool"] if verb == "run" else []
        assert main([verb, *flags, reference, *command]) == (125 if verb == "run" else 9)
        assert f"not signed by the key in {required}, but by another" in capsys.readouterr().err
        assert main([verb, *flags, "registry.invalid/team/envs:v1", *command]) == (125 if verb == "run" else 10)
        assert "registry.invalid/team/envs: not in allowed-registries of" in capsys.readouterr().err
    administer(monkeypatch, tmp_path, insecure=False)
    assert main(["inspect", *(flags or ["--insecure"]), "registry.invalid/team/envs:v1"]) == 10
    assert "registry.invalid: plain HTTP is refused by" in capsys.readouterr().err
