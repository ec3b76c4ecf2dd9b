"""Signing requests: basic and bearer, tokens for each scope, and no secret for another host."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import Denied, InvalidContent, Unreachable
from lamella.layers.registry.auth import Challenge, challenges
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.response import login_advice
from lamella.layers.registry.retry import Patience
from lamella.layers.settings.trust import Trust
from support.authority import authority
from support.distribution import distribution
from support.homes import auth_of, fresh_home, know
from support.published import blob, push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOON = Patience(tries=3, first=0.001)


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def registry(simulator: RegistrySimulator) -> Iterator[Registry]:
    made = Registry(simulator.host, "team/envs", patience=SOON)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fresh_home(tmp_path, monkeypatch)


KNOWN = auth_of(USER, PASSWORD)


@pytest.mark.engine
def test_a_registry_with_basic_authentication_accepts_docker_s_credentials(home: Path) -> None:
    with distribution(auth=True) as host:
        know(home, host, KNOWN)
        registry = Registry(host, "team/envs")
        manifest = push_image(registry, [b"content"], "v1")
        assert registry.resolve("v1") == manifest.descriptor
        registry.close()


@pytest.mark.engine
def test_a_registry_that_requires_a_login_is_reported_with_the_command(home: Path) -> None:
    with distribution(auth=True) as host:
        registry = Registry(host, "team/envs")
        with pytest.raises(
            Denied, match=rf"{host} requires authentication for team/envs:v1; log in with lamella login"
        ):
            registry.resolve("v1")
        know(home, host, auth_of(USER, "wrong"))
        other = Registry(host, "team/envs")
        with pytest.raises(Denied, match=rf"{host} refuses the credentials") as caught:
            other.resolve("v1")
        assert "wrong" not in str(caught.value)
        registry.close()
        other.close()


def test_a_refusal_by_docker_hub_explains_references_without_a_registry() -> None:
    assert login_advice("ghcr.io") == "log in with lamella login ghcr.io"
    assert login_advice("docker.io") == (
        "write REGISTRY/REPOSITORY:TAG for another registry, or log in with lamella login docker.io"
    )


def test_no_request_is_signed_before_the_registry_requires_it(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    know(home, simulator.host, KNOWN)
    push_image(registry, [b"content"], "v1")
    assert not [request for request in simulator.requests if "Authorization" in request.headers]


@pytest.mark.slow
def test_one_token_serves_every_request_of_its_scope(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, KNOWN)
    things = [blob(b"%d" % number) for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda thing: thing.pushed(registry), things))
    assert len(simulator.asked("GET /token")) == 1


def test_an_anonymous_pull_gets_a_token_without_credentials(simulator: RegistrySimulator, registry: Registry) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    simulator.auth = "bearer"
    assert registry.resolve("v1") == manifest.descriptor
    (request,) = simulator.asked("GET /token")
    assert "Authorization" not in request.headers
    assert "scope=repository%3Ateam%2Fenvs%3Apull" in request.path


def test_an_identity_token_is_exchanged_for_tokens(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, {"auth": "", "identitytoken": "identity"})
    push_image(registry, [b"content"], "v1")
    assert simulator.asked("POST /token")


def test_a_token_that_expires_during_a_push_is_renewed(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    simulator.auth = "bearer"
    simulator.token_uses = 3
    know(home, simulator.host, KNOWN)
    content = b"x" * (3 << 20)
    for number in range(5):
        blob(content + b"%d" % number).pushed(registry)
    assert len(simulator.blobs["team/envs"]) == 5
    assert len(simulator.asked("GET /token")) > 3


def test_a_token_that_expires_between_two_parts_restarts_the_upload(simulator: RegistrySimulator, home: Path) -> None:
    simulator.auth = "bearer"
    simulator.token_uses = 6
    simulator.largest_request = 1 << 20
    know(home, simulator.host, KNOWN)
    registry = Registry(simulator.host, "team/envs", patience=SOON, part=1 << 20)
    thing = blob(b"x" * (3 << 20)).pushed(registry)
    thing = blob(b"y" * (3 << 20)).pushed(registry)
    assert str(thing.descriptor.digest) in simulator.blobs["team/envs"]
    registry.close()


@pytest.mark.parametrize("life", [1e-6, 0, -300])
def test_a_token_is_used_for_most_of_a_minute_at_least(
    simulator: RegistrySimulator, registry: Registry, home: Path, life: float
) -> None:
    simulator.auth = "bearer"
    simulator.token_life = life
    know(home, simulator.host, KNOWN)
    for number in range(5):
        blob(b"%d" % number).pushed(registry)
    assert len(simulator.asked("GET /token")) == 1


@pytest.mark.parametrize("life", [float("nan"), float("-inf")])
def test_a_token_server_that_does_not_answer_in_json_is_refused(
    simulator: RegistrySimulator, registry: Registry, home: Path, life: float
) -> None:
    simulator.auth = "bearer"
    simulator.token_life = life
    know(home, simulator.host, KNOWN)
    with pytest.raises(InvalidContent, match="the token server's answer has no token"):
        blob(b"content").pushed(registry)


@pytest.mark.parametrize(("life", "seconds", "tokens"), [(None, 40, 1), (None, 55, 2), (300, 200, 1), (300, 290, 2)])
def test_a_token_is_renewed_shortly_before_it_expires(
    simulator: RegistrySimulator,
    registry: Registry,
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    life: float | None,
    seconds: int,
    tokens: int,
) -> None:
    """Without `expires_in` it lives a minute (token.md)."""
    simulator.auth = "bearer"
    simulator.token_life = life
    know(home, simulator.host, KNOWN)
    clock, passed = time.monotonic, 0
    monkeypatch.setattr(time, "monotonic", lambda: clock() + passed)
    blob(b"one").pushed(registry)
    passed = seconds
    blob(b"two").pushed(registry)
    assert len(simulator.asked("GET /token")) == tokens


def test_a_busy_token_server_is_retried(simulator: RegistrySimulator, registry: Registry, home: Path) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, KNOWN)
    simulator.faults = [Fault("GET /token", 1, 503)]
    blob(b"content").pushed(registry)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"token": 5}', b'{"token": "a\\r\\nX: b"}'])
def test_an_answer_without_a_token_is_reported(
    simulator: RegistrySimulator, registry: Registry, home: Path, body: bytes
) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, KNOWN)
    simulator.faults = [Fault("GET /token", 1, 200, body=body)]
    with pytest.raises(InvalidContent, match="the token server's answer has no token"):
        registry.resolve("v1")


@pytest.mark.parametrize(
    ("realm", "why"),
    [
        ("ftp://localhost/token", "not an HTTPS URL"),
        ("file:///etc/passwd", "not an HTTPS URL"),
        ("", "not an HTTPS URL"),
    ],
)
def test_a_hostile_token_server_is_refused(
    simulator: RegistrySimulator, registry: Registry, home: Path, realm: str, why: str
) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, KNOWN)
    simulator.faults = [
        Fault("GET .*/manifests/", 1, 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="tests"'})
    ]
    with pytest.raises(Denied, match=f"{why}.*refused as hostile"):
        registry.resolve("v1")


def test_a_token_server_without_https_gets_no_credentials_for_a_registry_with_https(
    simulator: RegistrySimulator, home: Path, tmp_path: Path
) -> None:
    issued = authority(tmp_path)
    other = RegistrySimulator()
    other.auth = "bearer"
    with other.serving(issued.server) as registry_with_tls:
        know(home, other.host, KNOWN)
        realm = f'Bearer realm="http://{simulator.host}/token",service="tests"'
        other.faults = [Fault("GET .*/manifests/", 1, 401, {"WWW-Authenticate": realm})]
        registry = Registry(registry_with_tls.host, "team/envs", trust=Trust(ca_file=issued.certificate))
        with pytest.raises(Denied, match=r"http://.*/token' is not an HTTPS URL; refused as hostile"):
            registry.resolve("v1")
        registry.close()
    assert simulator.requests == []


def test_a_token_server_with_a_query_of_its_own_gets_it_back(simulator: RegistrySimulator, registry: Registry) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    simulator.auth = "bearer"
    realm = f'Bearer realm="http://{simulator.host}/token?tenant=7",service="tests"'
    simulator.faults = [Fault("GET .*/manifests/", 1, 401, {"WWW-Authenticate": realm})]
    assert registry.resolve("v1") == manifest.descriptor
    [asked] = simulator.asked("GET /token")
    assert asked.path.startswith("/token?tenant=7&service=tests&")


def test_credentials_that_are_refused_later_are_sent_once(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    manifest = push_image(registry, [b"content"], "v1")
    simulator.auth = "basic"
    know(home, simulator.host, KNOWN)
    assert registry.resolve("v1") == manifest.descriptor
    simulator.requests.clear()
    simulator.faults = [Fault(".*", 9, 401, {"WWW-Authenticate": 'Basic realm="tests"'})]
    with pytest.raises(Denied, match="refuses the credentials for team/envs:v1"):
        registry.resolve("v1")
    assert len(simulator.requests) == 1


def test_credentials_stay_with_their_host(simulator: RegistrySimulator, registry: Registry, home: Path) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.auth = "basic"
    know(home, simulator.host, KNOWN)
    with RegistrySimulator().serving() as other:
        other.add_blob("team/envs", b"content")
        simulator.elsewhere = f"http://{other.host}"
        with registry.fetch(thing.descriptor) as stream:
            assert stream.read() == b"content"
        (request,) = other.requests
        assert "Authorization" not in request.headers
    assert "Authorization" in simulator.asked("GET .*/blobs/")[-1].headers


def test_the_host_of_a_redirect_sees_no_credentials(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.auth = "bearer"
    know(home, simulator.host, KNOWN)
    with RegistrySimulator().serving() as other:
        other.auth = "bearer"
        simulator.elsewhere = f"http://{other.host}"
        with pytest.raises(Denied), registry.fetch(thing.descriptor) as stream:
            stream.read()
        assert not other.asked("/token")


def test_an_upload_that_continues_at_another_host_is_not_signed(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    simulator.auth = "basic"
    know(home, simulator.host, KNOWN)
    with RegistrySimulator().serving() as other:
        where = f"http://{other.host}/v2/team/envs/blobs/uploads/5"
        simulator.faults = [Fault("POST .*/blobs/uploads/$", 1, 401, {"WWW-Authenticate": 'Basic realm="tests"'})]
        simulator.faults += [Fault("POST .*/blobs/uploads/$", 99, 202, {"Location": where})]
        with pytest.raises(Unreachable, match="lost the upload"):
            blob(b"content").pushed(registry)
        assert other.asked("PUT")
        assert not [request for request in other.requests if "Authorization" in request.headers]


def test_a_request_body_is_not_redirected_to_another_host(
    simulator: RegistrySimulator, registry: Registry, home: Path
) -> None:
    simulator.auth = "bearer"
    know(home, simulator.host, {"auth": "", "identitytoken": "identity"})
    with RegistrySimulator().serving() as other:
        simulator.faults = [Fault("POST /token", 1, 307, {"Location": f"http://{other.host}/token"})]
        with pytest.raises(Denied, match=rf"redirect of an upload to http://{other.host}/token refused"):
            registry.resolve("v1")
        assert not other.requests


def test_a_redirect_out_of_https_or_in_a_circle_is_refused(simulator: RegistrySimulator, registry: Registry) -> None:
    thing = blob(b"content").pushed(registry)
    simulator.faults = [Fault("GET .*/blobs/", 1, 307, {"Location": "ftp://elsewhere.example/x?secret=1"})]
    with pytest.raises(Denied, match=r"redirect to ftp://elsewhere\.example/x refused, without HTTPS") as caught:
        registry.fetch(thing.descriptor).__enter__().read()
    assert "secret" not in str(caught.value)
    simulator.faults = [Fault("GET .*/blobs/", 99, 307, {"Location": "/v2/team/envs/blobs/sha256:0"})]
    with pytest.raises(InvalidContent, match="too many redirects from"):
        registry.fetch(thing.descriptor).__enter__().read()


def test_an_unknown_authentication_scheme_is_reported(simulator: RegistrySimulator, registry: Registry) -> None:
    simulator.faults = [Fault("GET", 1, 401, {"WWW-Authenticate": "Negotiate"})]
    with pytest.raises(Denied, match="unsupported authentication scheme for team/envs:v1"):
        registry.resolve("v1")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (['Basic realm="a, b"'], [Challenge("basic", {"realm": "a, b"})]),
        (
            ['Bearer realm="https://auth.example/token",service="x",scope="repository:a/b:pull,push"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://auth.example/token", "service": "x", "scope": "repository:a/b:pull,push"},
                )
            ],
        ),
        (
            ['Basic realm="a", Bearer realm="b", service=c'],
            [Challenge("basic", {"realm": "a"}), Challenge("bearer", {"realm": "b", "service": "c"})],
        ),
        (
            ["Negotiate", 'BEARER Realm = "q\\"uote"'],
            [Challenge("negotiate", {}), Challenge("bearer", {"realm": 'q"uote'})],
        ),
        ([""], []),
    ],
)
def test_challenges_are_read_as_http_defines_them(headers: list[str], expected: list[Challenge]) -> None:
    assert challenges(headers) == expected
