"""The command lines of `agent` and `mount --agent`: refusals, and the text that they print."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lamella.cli.main import main
from lamella.layers import AgentOptions
from support.agents import agent, agent_process, wait_for
from support.published import publish

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("agent", "agent: pods could read every private environment"),
        (
            "agent --allow https://a",
            "--allow https://a: not a registry or repository; use HOST[:PORT][/REPOSITORY], *.",
        ),
        ("agent --allow a.b --every 0", "--every 0: not a number of seconds above 0"),
        ("agent --allow a.b --every nan", "--every nan: not a number of seconds above 0"),
        ("agent --allow a.b --socket-mode 888", "--socket-mode 888: not octal permissions"),
        ("agent --allow a.b --min-free 100%", "--min-free 100%: not a percentage"),
        ("agent --allow a.b --idle 1", "--idle 1: no unit"),
        ("agent --allow a.b --keep 1", "--keep 1: no unit"),
        ("agent --allow a.b --metrics 9464", "--metrics 9464: not ADDRESS:PORT"),
        ("agent --allow a.b --metrics localhost:1", "--metrics localhost:1: not ADDRESS:PORT"),
        ("agent --check", "agent.sock: no agent answers (no such file or directory); start one with lamella agent"),
        ("mount a/b:v1", "mount: missing TARGET; name an empty folder, or use --agent SOCKET"),
        ("mount a/b:v1 /env --agent x", "TARGET: not with --agent; the agent chooses the folder"),
        ("mount a/b:v1 --agent x --writable", "--writable: has no effect with --agent; leave one of them out"),
        ("mount a/b:v1 --agent x --dry-run", "--dry-run: has no effect with --agent"),
        ("mount a/b:v1 --agent x --timeout soon", "--timeout soon: not a number of seconds"),
        ("mount A/B:V1 --agent x", "A/B:V1: "),
    ],
)
def test_an_invalid_command_line_is_one_sentence(
    command: str, message: str, short_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command.split()
    if words[0] == "agent":
        words += ["--socket", str(short_path / "agent.sock")]
        words += [] if "--check" in words else ["--store", str(short_path / "store")]
    assert main(words) != 0
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_mount_prints_only_the_agent_s_folder(short_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reference = publish(short_path / "layout", [{"a": "1"}, {"b": "2"}])
    with agent(short_path, AgentOptions(allow=(f"oci:{short_path}",), metrics="", min_free=0)) as made:
        assert main(["mount", "--agent", made.socket, reference]) == 0
        printed = capsys.readouterr()
        digest = reference.rpartition("@")[2]
        assert printed.out == f"{short_path}/store/environments/{digest.replace(':', '-')}\n"
        assert printed.err == f"the agent at {made.socket} has mounted {reference}\n"


@pytest.mark.slow
def test_the_log_is_one_document_a_line_on_request(short_path: Path) -> None:
    reference = publish(short_path / "layout", [{"a": "1"}, {"b": "2"}])
    with agent_process(short_path, "--allow", f"oci:{short_path}", LAMELLA_LOG="json") as (made, process):
        try:
            made.give(reference)
            process.terminate()
            assert process.wait(20) == 0
        finally:
            made.clean()
    records = [json.loads(line) for line in (short_path / "agent.log").read_text().splitlines()]
    events = [record for record in records if record["logger"] == "lamella.agent"]
    (pulled,) = (event for event in events if event["message"].startswith("pulled "))
    assert (pulled["layers"], pulled["reference"]) == (2, reference)
    assert events[-1]["message"] == "stopped; mounts stay"


@pytest.mark.slow
def test_an_agent_stops_within_seconds_although_a_pull_goes_on(short_path: Path) -> None:
    from support.registry_simulator import Fault, RegistrySimulator

    with RegistrySimulator().serving() as registry:
        registry.faults.append(Fault("manifests", drip_head=5))
        reference = f"{registry.host}/team/envs:v1"
        with agent_process(short_path, "--pull", reference) as (_, process):
            wait_for(lambda: bool(registry.asked("manifests")))
            process.terminate()
            assert process.wait(20) == 0
