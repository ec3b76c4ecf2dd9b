"""Requests and decisions on stderr: --verbose and LAMELLA_LOG, and no secret among them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lamella.cli.settings import EVERY, OTHERS
from lamella.layers import copy
from support.caches import warm_cache
from support.installed import install, venv, wheel
from support.published import publish
from support.registry_simulator import PASSWORD, USER, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

CANARY = "c4n4ry"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistrySimulator]:
    simulator = RegistrySimulator()
    with simulator.serving():
        reference = publish(tmp_path_factory.mktemp("published") / "layout", [{"bin/tool*": "#!/bin/sh\n"}])
        copy(reference, f"{simulator.host}/team/envs:v1")
        yield simulator


def lamella(folder: Path, *arguments: object, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a store, a cache and credentials in `folder`."""
    own = {"LAMELLA_STORE": f"{folder}/store", "LAMELLA_CACHE": f"{folder}/cache", "DOCKER_CONFIG": f"{folder}/docker"}
    return subprocess.run(
        [sys.executable, "-m", "lamella.cli", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        env=os.environ | own | variables,
        cwd=folder,
    )


def test_verbose_shows_each_request_with_status_and_time_and_each_decision(
    registry: RegistrySimulator, tmp_path: Path
) -> None:
    reference = f"{registry.host}/team/envs:v1"
    done = lamella(tmp_path, "pull", reference, "--verbose")
    assert done.returncode == 0, done.stderr
    requests = re.findall(r"^lamella: (GET|HEAD) (\S+): (\d+)(?:, [\d.]+ k?B)?, \d+ ms$", done.stderr, re.MULTILINE)
    assert ("GET", f"http://{registry.host}/v2/team/envs/manifests/v1", "200") in requests
    assert any("/blobs/sha256:" in url for _, url, _ in requests)
    assert "lamella: 0 layers in the store, 1 to fetch\n" in done.stderr
    assert re.search(r"^lamella: fetch p0: not in the store, \d+", done.stderr, re.MULTILINE)
    assert "lamella: GET" not in lamella(tmp_path, "pull", reference).stderr
    ran = lamella(tmp_path, "run", "-v", reference, "--", "/bin/true")
    assert re.search(r"^lamella: method \w+: used$", ran.stderr, re.MULTILINE)


def test_verbose_says_why_each_layer_is_built_uploaded_or_reused(tmp_path: Path, shared: Path) -> None:
    alpha = wheel(tmp_path, "alpha", "1.0", {"alpha.py": "VALUE = 1\n"})
    prefix = install(venv(tmp_path / "env", by="uv"), alpha, by="uv")
    warm_cache(shared, tmp_path / "cache")

    def decision(target: str) -> list[str]:
        done = lamella(tmp_path, "push", f"oci:{target}:v1", prefix, "--verbose")
        return re.findall(r"^lamella: (.* alpha 1\.0: .*)$", done.stderr, re.MULTILINE)

    assert decision("one") == ["build alpha 1.0: no layer with its key here or there"]
    assert decision("two") == ["upload alpha 1.0: built before, and not there yet"]
    assert decision("two") == ["reuse alpha 1.0: there already"]


def test_lamella_log_json_makes_every_line_of_stderr_a_document(registry: RegistrySimulator, tmp_path: Path) -> None:
    done = lamella(tmp_path, "pull", f"{registry.host}/team/envs:v1", LAMELLA_LOG="json")
    records = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"time", "level", "logger", "message"} <= record.keys() for record in records)
    request = next(record for record in records if record.get("method") == "GET")
    assert (request["status"], request["level"], request["logger"]) == (200, "debug", "lamella.layers.registry")
    assert records[-1]["message"].startswith("0 of 1 layer already in ")
    failed = lamella(tmp_path, "pull", f"{registry.host}/team/envs:v9", LAMELLA_LOG="json")
    last = json.loads(failed.stderr.splitlines()[-1])
    assert (last["level"], last["code"]) == ("error", "not-found")


def test_an_invalid_lamella_log_is_reported(tmp_path: Path) -> None:
    done = lamella(tmp_path, "ls", LAMELLA_LOG="xml")
    assert (done.returncode, done.stderr) == (2, "lamella: LAMELLA_LOG xml: invalid choice; use text or json\n")


@pytest.mark.parametrize("auth", ["basic", "bearer"])
@pytest.mark.parametrize("log", ["text", "json"])
def test_no_secret_is_ever_logged(auth: str, log: str, tmp_path: Path) -> None:
    simulator = RegistrySimulator()
    simulator.auth = auth
    hosts = tmp_path / "hosts"
    with simulator.serving():
        (hosts / simulator.host).mkdir(parents=True)
        (hosts / simulator.host / "hosts.toml").write_text(f'[header]\nx-secret = "{CANARY}"\n')
        reference = f"{simulator.host}/team/envs:v1"
        source = publish(tmp_path / "layout", [{"a": ""}], tag="v1")
        variables = {
            "LAMELLA_LOG": log,
            "LAMELLA_HOSTS_DIR": str(hosts),
            "COSIGN_PASSWORD": CANARY,
            "LAMELLA_INSECURE": "1",
        }
        commands: list[tuple[object, ...]] = [
            ("login", simulator.host, "-u", USER, "--password-stdin"),
            ("copy", source, reference),
            ("pull", reference),
            ("inspect", reference),
            ("tags", f"{simulator.host}/team/envs"),
            ("pull", f"https://me:{CANARY}@{simulator.host}/x"),
            ("pull", f"me:{CANARY}@{simulator.host}/x"),
            ("login", simulator.host, "-u", USER, "-p", CANARY),
        ]
        shown = [lamella(tmp_path, *command, stdin=f"{PASSWORD}\n", **variables) for command in commands]
        assert [done.returncode for done in shown] == [0, 0, 0, 0, 0, 2, 2, 2], [done.stderr for done in shown]
    text = "".join(done.stdout + done.stderr for done in shown)
    assert simulator.host in text
    config = json.loads((tmp_path / "docker/config.json").read_text())
    secrets = [CANARY, config["auths"][simulator.host]["auth"], *simulator.tokens]
    secrets += [request.headers.get("Authorization", "-") for request in simulator.requests]
    assert any(request.headers.get("x-secret") == CANARY for request in simulator.requests)
    assert [secret for secret in secrets if secret not in {"", "-"} and secret in text] == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("LAMELLA_STOER", "did you mean LAMELLA_STORE?"),
        ("LAMELLA_REQUIRE_SIGNATUR", "did you mean LAMELLA_REQUIRE_SIGNATURE?"),
        ("LAMELLA_XYZZY", "see lamella help"),
    ],
)
def test_an_unknown_variable_is_reported(name: str, hint: str, tmp_path: Path) -> None:
    done = lamella(tmp_path, "ls", **{name: "x"})
    assert (done.returncode, done.stderr) == (0, f"lamella: {name}: unknown variable, ignored; {hint}\n")
    assert lamella(tmp_path, "ls", "--quiet", **{name: "x"}).stderr == ""


def test_known_variables_and_those_of_kubernetes_services_are_not_reported(tmp_path: Path) -> None:
    service = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP", "PORT_80_TCP_ADDR")
    variables = {f"LAMELLA_REGISTRY_{name}": "x" for name in service} | dict.fromkeys(OTHERS, "")
    known = {setting.variable: "" for setting in EVERY if setting.kind is list}
    assert lamella(tmp_path, "ls", **(variables | known)).stderr == ""
