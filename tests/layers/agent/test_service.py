"""An agent's socket: many clients, hostile ones, and those without a right."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.layers import (
    AgentOptions,
    Busy,
    Denied,
    InvalidReference,
    LayersError,
    NotFound,
    PolicyError,
    Reference,
    Unreachable,
    Unsupported,
    copy,
    pull,
    request_environment,
)
from lamella.layers.agent import service
from support.agents import Agent, agent, wait_for
from support.published import publish
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def registry() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as simulator:
        yield simulator


@pytest.fixture
def options(registry: RegistrySimulator) -> AgentOptions:
    return AgentOptions(allow=(f"{registry.host}/team",), metrics="127.0.0.1:0", min_free=0, every=3600)


@pytest.fixture
def served(short_path: Path, options: AgentOptions) -> Iterator[Agent]:
    with agent(short_path, options) as made:
        yield made


def push(registry: RegistrySimulator, short_path: Path, *layers: dict[str, str], tag: str = "v1", **needs: str) -> str:
    """Push an environment and return its reference by tag."""
    made = publish(short_path / "layout", layers, **needs)  # type: ignore[arg-type]
    reference = f"{registry.host}/team/envs:{tag}"
    copy(made, reference)
    registry.requests.clear()
    return reference


TOOL = {"bin/tool*": "#!/bin/sh\necho 1\n"}


def test_an_environment_is_mounted_at_a_folder_named_by_its_digest(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    given = served.give(push(registry, short_path, TOOL, {"lib/data": "1"}))
    assert given.path == f"{short_path}/store/environments/{given.digest.replace(':', '-')}"
    assert sorted(os.listdir(given.path)) == ["bin", "lib"]
    assert given.reference.endswith(f"@{given.digest}")
    assert given.prefix == "/opt/env"


def test_twenty_requests_at_once_download_each_layer_once(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    reference = push(registry, short_path, *({f"lib/{number}": str(number)} for number in range(5)))
    with ThreadPoolExecutor(20) as pool:
        given = set(pool.map(served.give, [reference] * 20))
    assert len(given) == 1
    blobs = [request.path for request in registry.asked("GET .*/blobs/")]
    assert len(blobs) == len(set(blobs)) == 5 + 1  # and the configuration


def test_a_second_request_by_digest_makes_no_request_to_the_registry(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    given = served.give(push(registry, short_path, TOOL))
    registry.requests.clear()
    assert served.give(given.reference) == given
    assert registry.requests == []


def test_a_digest_of_another_repository_in_the_store_is_not_given_from_an_allowed_one(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    # Pulled by the node's own user, from a repository that pods may not read.
    copy(publish(short_path / "layout", [TOOL, {"lib/secret": "1"}]), f"{registry.host}/private/envs:v1")
    digest = Reference.parse(pull(f"{registry.host}/private/envs:v1", store=served.store).reference).digest
    with pytest.raises(PolicyError):
        served.give(f"{registry.host}/private/envs@{digest}")
    with pytest.raises(NotFound, match="team/envs"):
        served.give(f"{registry.host}/team/envs@{digest}")
    # Nor by asking again.
    with pytest.raises(NotFound, match="team/envs"):
        served.give(f"{registry.host}/team/envs:v1@{digest}")
    assert not os.listdir(f"{served.store.path}/environments")


def test_a_new_agent_needs_no_registry_for_what_an_earlier_one_pulled(
    registry: RegistrySimulator, short_path: Path, options: AgentOptions
) -> None:
    reference = push(registry, short_path, TOOL)
    with agent(short_path, options) as made:
        given = made.give(reference)
    registry.requests.clear()
    with agent(short_path, options) as made:
        assert made.give(given.reference) == given
    assert registry.requests == []


def test_a_change_of_one_layer_downloads_that_one(served: Agent, registry: RegistrySimulator, short_path: Path) -> None:
    first = served.give(push(registry, short_path, TOOL, {"lib/data": "1"}))
    second = served.give(push(registry, short_path, TOOL, {"lib/data": "2"}))
    assert first.path != second.path
    assert len(registry.asked("GET .*/blobs/")) == 1 + 1  # and the configuration
    assert [Path(each.path, "lib/data").read_text() for each in (first, second)] == ["1", "2"]


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("HOST/team/envs:v9", NotFound, "v9"),
        ("HOST/other/envs:v1", PolicyError, "HOST/other/envs: not allowed by the agent of this node"),
        ("ghcr.io/team/envs:v1", PolicyError, "not allowed by the agent"),
        ("oci:/etc:v1", PolicyError, "oci:/etc: not allowed by the agent"),
        ("HOST/team/../other:v1", InvalidReference, "not a repository"),
    ],
)
def test_a_wrong_reference_is_one_sentence(
    served: Agent, registry: RegistrySimulator, reference: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message.replace("HOST", registry.host)) as raised:
        served.give(reference.replace("HOST", registry.host))
    assert "\n" not in str(raised.value)
    assert os.listdir(served.folder / "store/environments") == []


def test_a_registry_that_requires_credentials_is_one_sentence(
    served: Agent, registry: RegistrySimulator, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = push(registry, short_path, TOOL)
    monkeypatch.setenv("DOCKER_CONFIG", str(short_path))
    registry.auth = "basic"
    with pytest.raises(Denied, match=r"^agent of the node: .*lamella login") as raised:
        served.give(reference)
    assert "\n" not in str(raised.value)


def test_a_container_with_an_older_glibc_is_refused_before_a_download(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    reference = push(registry, short_path, TOOL, glibc="99.1")
    with pytest.raises(Unsupported, match=r"it needs glibc 99\.1 or newer and this machine has"):
        served.give(reference)
    assert len(registry.asked("GET .*/blobs/")) == 1
    status, answer = served.post(json.dumps({"reference": reference, "glibc": "99.2"}).encode())
    assert (status, answer["prefix"]) == (200, "/opt/env")
    with pytest.raises(Unsupported):
        served.give(answer["reference"])


def test_c_library_of_an_init_container_does_not_count_for_programs_that_run_elsewhere(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    reference = push(registry, short_path, TOOL, glibc="99.1")
    given = request_environment(reference, path=served.socket, timeout=20, elsewhere=True)
    assert given.prefix == "/opt/env"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "reference is not a string"),
        (b'{"reference": 1}', "reference is not a string"),
        (b'{"reference": "%s"}' % (b"a" * 1025), "1 to 1024 characters"),
        (b'{"reference": "a/b", "glibc": "1;2"}', "glibc is not a version"),
        (b'{"reference": "a/b", "reference": "c/d"}', "reference twice"),
        (b"\xff", "not JSON"),
        (b"x" * (service.MAX_REQUEST + 1), "more than 65536 bytes"),
    ],
)
def test_an_invalid_body_is_refused(served: Agent, body: bytes, message: str) -> None:
    status, answer = served.post(body)
    assert (status, answer["error"]["code"]) == (400, "invalid")
    assert message in answer["error"]["message"]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 404),
        (b"POST /environments HTTP/1.1\r\n\r\n", 400),
        (b"POST /environments HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /environments HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /environments HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}", 400),
        (b"DELETE /environments HTTP/1.1\r\n\r\n", 501),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET /" + b"a" * (service.MAX_REQUEST + 10) + b" HTTP/1.1\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_a_request_that_is_not_the_protocol_is_refused(served: Agent, request_: bytes, status: int) -> None:
    found, answer = served.send(request_)
    assert (found, answer["error"]["code"]) == (status, "invalid")


def test_a_slow_client_is_cut_off_and_holds_up_no_other(
    served: Agent, registry: RegistrySimulator, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_SECONDS", 0.3)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.connect(served.socket)
        slow.sendall(b"POST /environments HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
        assert served.give(push(registry, short_path, TOOL)).prefix == "/opt/env"
        slow.settimeout(20)
        assert slow.recv(100) == b""


def test_connections_above_the_limit_get_an_answer_to_retry_after(
    short_path: Path, options: AgentOptions, registry: RegistrySimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_CONNECTIONS", 2)
    with agent(short_path, options) as made:
        reference = push(registry, short_path, TOOL)
        idle = [socket.socket(socket.AF_UNIX) for _ in range(2)]
        try:
            for each in idle:
                each.connect(made.socket)
            paused = list[float]()

            def pause(duration: float) -> None:
                paused.append(duration)
                for each in idle:
                    each.close()

            assert request_environment(reference, path=made.socket, timeout=20, pause=pause).prefix == "/opt/env"
            assert paused
        finally:
            for each in idle:
                each.close()


def test_a_client_that_goes_away_leaves_the_pull_to_the_next(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    reference = push(registry, short_path, TOOL)
    came, go = threading.Event(), threading.Event()

    def hold() -> None:
        came.set()
        go.wait(20)

    registry.faults.append(Fault("GET .*/blobs/", meanwhile=hold))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(served.socket)
        body = json.dumps({"reference": reference}).encode()
        client.sendall(b"POST /environments HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert came.wait(20)
    go.set()
    assert served.give(reference).prefix == "/opt/env"
    blobs = [request.path for request in registry.asked("GET .*/blobs/")]
    assert len(blobs) == len(set(blobs))


def test_metrics_are_served_on_the_socket_and_on_the_address_which_gives_no_environment(
    served: Agent, registry: RegistrySimulator, short_path: Path
) -> None:
    served.give(push(registry, short_path, TOOL))
    head, text = served.get("/metrics")
    assert "Content-Type: text/plain; version=0.0.4" in head
    assert 'lamella_agent_requests_total{status="200"} 1\n' in text
    assert "lamella_agent_downloaded_layers_total 1\n" in text
    assert "lamella_agent_environments_mounted 1\n" in text
    host, _, port = str(served.state["metrics"]).rpartition(":")
    for request, answer in ((b"GET /metrics", b" 200 "), (b"POST /environments", b" 404 ")):
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(request + b" HTTP/1.0\r\nContent-Length: 0\r\n\r\n")
            assert answer in connection.recv(100)


@pytest.mark.parametrize("mode", [0o666, 0o660])
def test_the_socket_has_the_chosen_mode(short_path: Path, options: AgentOptions, mode: int) -> None:
    with agent(short_path, replace(options, socket_mode=mode)) as made:
        assert stat.S_IMODE(os.stat(made.socket).st_mode) == mode


def test_a_second_agent_on_a_socket_is_refused_and_the_first_goes_on(served: Agent, options: AgentOptions) -> None:
    with (
        pytest.raises(Busy, match=r"in use by process \d+ \(lamella agent\); stop that agent"),
        agent(served.folder, options),
    ):
        pass
    assert json.loads(served.get("/health")[1]) == served.state


def test_the_socket_of_a_dead_agent_is_replaced(short_path: Path, options: AgentOptions) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_path / "agent.sock"))
    with agent(short_path, options) as made:
        assert json.loads(made.get("/health")[1])["ready"] is True
    assert not os.path.exists(made.socket)


def test_a_file_at_the_socket_s_path_is_left_alone(short_path: Path, options: AgentOptions) -> None:
    (short_path / "agent.sock").write_text("precious")
    with pytest.raises(LayersError, match="not a socket; remove it"), agent(short_path, options):
        pass
    assert (short_path / "agent.sock").read_text() == "precious"


def test_without_an_agent_the_message_names_the_socket_and_the_daemon_set(short_path: Path) -> None:
    paused = list[float]()
    with pytest.raises(Unreachable) as raised:
        request_environment("a/b:v1", path=str(short_path / "agent.sock"), timeout=0.5, pause=paused.append)
    assert str(raised.value) == (
        f"--agent {short_path}/agent.sock: no agent answered within 0.5 s (no such file or directory); check the pod of the "
        "DaemonSet that runs lamella agent on this node"
    )


def test_a_client_waits_for_an_agent_that_starts(
    short_path: Path, options: AgentOptions, registry: RegistrySimulator
) -> None:
    reference = push(registry, short_path, TOOL)
    with ThreadPoolExecutor(1) as pool:
        waiting, up = threading.Event(), threading.Event()

        def pause(_: float) -> None:
            waiting.set()
            assert up.wait(20)

        asked = pool.submit(request_environment, reference, path=str(short_path / "agent.sock"), pause=pause)
        assert waiting.wait(20)
        with agent(short_path, options):
            up.set()
            assert asked.result(20).prefix == "/opt/env"


def test_references_are_kept_pulled_and_a_moved_tag_is_mounted_beside_the_old(
    short_path: Path, options: AgentOptions, registry: RegistrySimulator
) -> None:
    reference = push(registry, short_path, {"lib/data": "1"})
    with agent(short_path, replace(options, pull=(reference,), every=0.1)) as made:
        environments = short_path / "store/environments"
        wait_for(lambda: [each.read_text() for each in environments.glob("*/lib/data")] == ["1"])
        push(registry, short_path, {"lib/data": "2"})
        wait_for(lambda: sorted(each.read_text() for each in environments.glob("*/lib/data")) == ["1", "2"])
    assert len([event for event in made.events if "is ready at" in event]) == 2


def test_a_registry_that_is_down_is_one_line_of_the_log(
    short_path: Path, options: AgentOptions, registry: RegistrySimulator
) -> None:
    reference = f"{registry.host}/team/envs:v9"
    with agent(short_path, replace(options, pull=(reference,), every=0.01)) as made:
        wait_for(lambda: len(registry.asked("manifests/v9")) > 5)
    assert len([event for event in made.events if event.startswith(f"cannot pull {reference}: ")]) == 1
