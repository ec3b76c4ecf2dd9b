"""A command line that cannot work is refused before a request goes out, by every verb that asks a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.cli.main import main
from lamella.layers import Platform
from support.installed import install, venv, wheel
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - {name: main, image: b}\n"
KEY = "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"


@pytest.fixture(scope="module")
def registry() -> Iterator[RegistrySimulator]:
    simulator = RegistrySimulator()
    with simulator.serving():
        yield simulator


@pytest.mark.parametrize(
    "line",
    [
        "inject pod.yaml --env REF",
        "inject pod.yaml --env REF --image node --path srv",
        "inject pod.yaml --env REF --image node --method host --node-store /srv",
        "inject pod.yaml --env REF --method image-volume --kubernetes-version 1.30",
        "inject absent.yaml --env REF --image node",
        "pull REF --platform linux",
        "pull REF --require-signature absent.pem",
        "pull REF --require-signature empty.pem",
        "pull REF --dry-run --platform linux",
        "push REF empty --label a",
        "push REF empty --created tomorrow",
        "push REF empty --sign absent.key",
        "push REF empty --max-layers 0",
        "push REF empty --base b:",
        "push REF empty --image-prefix env",
        "push REF empty --platform linux",
        "push REF empty --poll",
        "run REF",
        "run REF --restart -- true",
        "run REF --follow --signal NONE -- true",
        "run REF --follow --restart --signal HUP -- true",
        "run REF@sha256:DIGEST --follow -- true",
        "mount REF",
        "mount REF target --interval 1",
        "mount REF target --follow --writable",
        "mount REF pod.yaml",
        "mount REF full",
        "mount REF target --prefix env",
        "mount REF target --changes pod.yaml",
        "mount REF target --require-identity x",
        "export REF out.rar",
        "export REF pod.yaml",
        "export REF full",
        "export REF out.zip --compress-level 99",
        "export REF out.tar.gz --prefix env",
        "export REF out.tar.gz --platform linux",
        "export REF --to-docker --platform linux",
        "copy REF v1:",
        "copy v1: REF",
        "copy REF oci:pod.yaml:v1",
        "diff REF v1:",
        "diff v1: REF",
        "diff REF absent/",
        "inspect REF --platform linux",
        "inspect REF --verify absent.pem",
        "inspect REF --verify empty.pem",
        "verify REF --dry-run",
        "verify REF --require-signature absent.pem",
        "attach REF absent.txt --type application/x",
        "attach REF pod.yaml --type nothing",
        "attach REF pod.yaml --type application/x --annotation a",
        "attach REF pod.yaml --type application/x --sign absent.key",
        "attach REF full --type application/x",
        "fetch REF pod.yaml",
        "fetch REF out --limit 1",
        "fetch REF out --digest sha256:1",
        "fetch REF out --type nothing",
        "artifacts REF --type nothing",
        "tags HOST",
        "agent --allow HOST --pull v1: --socket agent.sock",
        "agent --pull REF --socket agent.sock --every 0",
        "agent --pull REF --socket agent.sock --metrics 1",
    ],
)
def test_nothing_is_asked_of_the_registry(
    line: str,
    registry: RegistrySimulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pod.yaml").write_text(POD)
    (tmp_path / "empty.pem").write_text(KEY)
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    registry.requests.clear()
    words = (
        line.replace("REF", f"{registry.host}/team/envs:v1").replace("HOST", registry.host).replace("DIGEST", "a" * 64)
    )

    assert main(words.split()) != 0

    error = capsys.readouterr().err
    assert registry.requests == [], error
    assert error.count("\n") == 1, error
    assert "internal error" not in error


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        "push REF env --max-layers 0",
        "push REF env --image-prefix env",
        "push REF env --image-prefix /usr",
        "push REF@sha256:DIGEST env",
        "push REF env --local absent",
        "push REF env --include absent",
        "push REF env --platform windows/amd64",
        "scan env --platform linux/arm64 --glibc 3",
        "export env out.rar",
        "export env out.tar --threads -1",
        "export env out.tar --compress-level 4",
        "export env out.zip --compress-level 99",
        "export env folder --arcroot a",
        "export env out.tar --arcroot ../a",
        "export env out.parcel",
        "export env folder --link",
        "export REF out.tar --link",
        "mount REF target --prefix env",
        "mount REF target --changes file",
    ],
)
def test_an_invalid_value_of_a_flag_exits_as_an_invalid_command_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    install(venv(tmp_path / "env"), wheel(tmp_path, "one", "1.0"))
    (tmp_path / "file").write_text("")
    words = line.replace("REF", "localhost:1/team/envs:v1").replace("DIGEST", "a" * 64)
    assert main(words.split()) == 2, capsys.readouterr().err


HERE = str(Platform.here())
OTHER = "linux/arm64" if HERE == "linux/amd64" else "linux/amd64"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("push REF env --watch --platform OTHER", "--watch: follows an environment for its own platform"),
        ("push REF env --watch --platform HERE,OTHER", "--watch: follows an environment for its own platform"),
        ("scan env --platform OTHER --files one", "--files: not for another platform"),
        ("scan env --platform OTHER --left-out", "--left-out: not for another platform"),
        ("scan env --match minor", "--match: has no effect without --platform; add --platform"),
        ("push REF env --exact one", "--exact: has no effect without --platform; add --platform"),
        ("scan env --platform HERE,", "--platform HERE,: not a platform; write os/architecture"),
    ],
)
def test_nothing_is_asked_of_an_index(
    line: str,
    problem: str,
    registry: RegistrySimulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_CACHE", str(tmp_path / "cache"))
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, f"http://{registry.host}/simple")
    install(venv(tmp_path / "env"), wheel(tmp_path, "one", files={"one.py": ""}))
    registry.requests.clear()
    line = line.replace("REF", f"{registry.host}/team/envs:v1").replace("HERE", HERE).replace("OTHER", OTHER)

    assert main(line.split()) == 2

    error = capsys.readouterr().err
    assert registry.requests == [], error
    assert error.startswith(f"lamella: {problem.replace('HERE', HERE)}")


def test_a_setting_for_another_platform_alone_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMELLA_MATCH", "minor")
    venv(tmp_path / "env")
    assert main(["scan", "env"]) == 0, capsys.readouterr().err
