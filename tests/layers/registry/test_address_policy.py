"""The addresses that a registry's answers may lead to, checked at each connection."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pytest

from lamella.layers.errors import Denied, LayersError
from lamella.layers.registry.address_policy import AddressPolicy, Closeness, closeness
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.settings.trust import Trust
from support.homes import auth_of, fresh_home, know
from support.networks import in_network
from support.published import blob, push_image
from support.registry_simulator import PASSWORD, USER, Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SOON = Patience(tries=3, first=0.001)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fresh_home(tmp_path, monkeypatch)


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def registry(simulator: RegistrySimulator) -> Iterator[Registry]:
    made = Registry(simulator.host, "team/envs", patience=SOON)
    yield made
    made.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Names that resolve to the addresses put here."""
    found: dict[str, str] = {}
    resolve = socket.getaddrinfo

    def answer(host: Any, *arguments: Any, **options: Any) -> Any:
        return resolve(found.get(host, host), *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return found


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("140.82.121.34", Closeness.PUBLIC),
        ("2606:50c0:8000::154", Closeness.PUBLIC),
        ("64:ff9b::8c52:7922", Closeness.PUBLIC),
        ("198.18.0.1", Closeness.PUBLIC),
        ("10.1.2.3", Closeness.PRIVATE),
        ("172.31.255.255", Closeness.PRIVATE),
        ("172.32.0.0", Closeness.PUBLIC),
        ("192.168.1.1", Closeness.PRIVATE),
        ("100.64.0.1", Closeness.PRIVATE),
        ("fd12:3456::1", Closeness.PRIVATE),
        ("::ffff:10.1.2.3", Closeness.PRIVATE),
        ("64:ff9b::10.1.2.3", Closeness.PRIVATE),
        ("127.0.0.1", Closeness.LOOPBACK),
        ("127.9.9.9", Closeness.LOOPBACK),
        ("0.0.0.0", Closeness.LOOPBACK),
        ("::1", Closeness.LOOPBACK),
        ("::", Closeness.LOOPBACK),
        ("::ffff:127.0.0.1", Closeness.LOOPBACK),
        ("169.254.169.254", Closeness.METADATA),
        ("169.254.170.2", Closeness.METADATA),
        ("100.100.100.200", Closeness.METADATA),
        ("168.63.129.16", Closeness.METADATA),
        ("fe80::1%eth0", Closeness.METADATA),
        ("fd00:ec2::254", Closeness.METADATA),
        ("fd00:ec2::23", Closeness.METADATA),
        ("fd20:ce::254", Closeness.METADATA),
        ("::ffff:169.254.169.254", Closeness.METADATA),
        ("64:ff9b::a9fe:a9fe", Closeness.METADATA),
        ("64:ff9b:1::169.254.169.254", Closeness.METADATA),
        ("2002:a9fe:a9fe::1", Closeness.METADATA),
        ("::169.254.169.254", Closeness.METADATA),
    ],
)
def test_addresses_are_classed_also_inside_ipv6(address: str, expected: Closeness) -> None:
    assert closeness(address) == expected


@pytest.mark.parametrize("own", ["140.82.121.34", "10.0.0.1", "127.0.0.1"])
@pytest.mark.parametrize("other", ["185.199.108.154", "192.168.0.1", "127.0.0.1", "169.254.169.254"])
def test_an_answer_leads_no_closer_than_its_registry(own: str, other: str) -> None:
    policy = AddressPolicy("registry.example")
    policy.admit_own("registry.example", own)
    if closeness(other) <= closeness(own):
        policy.admit_named("blobs.example", other)
    else:
        with pytest.raises(Denied, match=rf"registry\.example: refused to continue at blobs\.example: {other} is "):
            policy.admit_named("blobs.example", other)


def test_a_registry_that_changes_its_address_counts_as_its_most_public_one() -> None:
    policy = AddressPolicy("registry.example")
    policy.admit_own("registry.example", "140.82.121.34")
    policy.admit_own("registry.example", "127.0.0.1")
    with pytest.raises(Denied):
        policy.admit_named("blobs.example", "127.0.0.1")


@pytest.mark.parametrize(
    "host",
    ["169.254.169.254", "2852039166", "0xa9fea9fe", "169.16689662", "fd00:ec2::254", "metadata.google.internal", "10.0.0.1"],
)  # fmt: skip
def test_a_host_that_a_proxy_resolves_is_refused_by_its_spelling(host: str) -> None:
    policy = AddressPolicy("registry.example")
    policy.admit_proxied("registry.example", own=True)
    policy.admit_proxied("blobs.example", own=False)
    with pytest.raises(Denied, match=r"registry\.example: refused to continue at "):
        policy.admit_proxied(host, own=False)


HOSTS = ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "metadata.example", "six.example", "2852039166"]


def follow_redirect(simulator: RegistrySimulator, registry: Registry, host: str) -> None:
    simulator.faults = [Fault("GET .*/blobs/", 9, 307, {"Location": f"http://{host}/latest/meta-data"})]
    registry.fetch(blob(b"content").descriptor).__enter__().read()


def follow_realm(simulator: RegistrySimulator, registry: Registry, host: str) -> None:
    simulator.auth, simulator.realm = "bearer", f"http://{host}/token"
    registry.resolve("v1")


def follow_upload(simulator: RegistrySimulator, registry: Registry, host: str) -> None:
    simulator.faults = [Fault("POST .*/uploads/", 9, 202, {"Location": f"http://{host}/upload"})]
    blob(b"content").pushed(registry)


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("follow", [follow_redirect, follow_realm, follow_upload])
def test_no_answer_leads_to_the_credentials_of_a_cloud_machine(
    simulator: RegistrySimulator,
    registry: Registry,
    home: Path,
    names: dict[str, str],
    follow: Callable[[RegistrySimulator, Registry, str], None],
    host: str,
) -> None:
    know(home, simulator.host, auth_of(USER, PASSWORD))
    names.update({"metadata.example": "169.254.169.254", "six.example": "fd00:ec2::254"})
    with pytest.raises(
        Denied, match=rf"{simulator.host}: refused to continue at .* is a link-local or metadata address; report this"
    ) as caught:
        follow(simulator, registry, host)
    assert "lamella login" not in str(caught.value)


def test_a_registry_whose_name_leads_to_metadata_is_refused(names: dict[str, str]) -> None:
    names["registry.example"] = "169.254.169.254"
    registry = Registry("registry.example", "team/envs", trust=Trust(insecure=True), patience=SOON)
    with pytest.raises(Denied, match=r"registry\.example: 169\.254\.169\.254 is a link-local or metadata address"):
        registry.tags()
    registry.close()


def test_a_refusal_by_a_redirect_s_host_advises_no_login_there(
    simulator: RegistrySimulator, registry: Registry
) -> None:
    thing = blob(b"content").pushed(registry)
    with RegistrySimulator().serving() as other:
        other.faults = [Fault("GET", 9, 403)]
        simulator.elsewhere = f"http://{other.host}"
        with pytest.raises(Denied, match=rf"{other.host}, where the registry continues, denies team/envs") as caught:
            registry.fetch(thing.descriptor).__enter__().read()
    assert "login" not in str(caught.value)


PUBLIC, PRIVATE, LOOPBACK = "203.0.113.7", "10.9.8.7", "127.0.0.1"


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize(
    ("at", "to", "admitted"),
    [
        (PUBLIC, PUBLIC, True),
        (PUBLIC, PRIVATE, False),
        (PUBLIC, LOOPBACK, False),
        (PRIVATE, PRIVATE, True),
        (PRIVATE, LOOPBACK, False),
        (LOOPBACK, PRIVATE, True),
    ],
)
def test_a_blob_comes_from_where_its_registry_may_lead(at: str, to: str, admitted: bool) -> None:
    def pull() -> tuple[str, int]:
        with RegistrySimulator().serving(address=at) as simulator, RegistrySimulator().serving(address=to) as other:
            registry = Registry(simulator.host, "team/envs", trust=Trust(insecure=True), patience=SOON)
            push_image(registry, [b"content"])
            other.add_blob("team/envs", b"content")
            simulator.elsewhere = f"http://{other.host}"
            try:
                with registry.fetch(blob(b"content").descriptor) as stream:
                    return stream.read().decode(), len(other.requests)
            except LayersError as error:
                return str(error), len(other.requests)
            finally:
                registry.close()

    outcome, requests = in_network([f"{PUBLIC}/32", f"{PRIVATE}/32"], pull)
    if admitted:
        assert (outcome, requests) == ("content", 1)
    else:
        assert f"refused to continue at {to}: {to} is a " in outcome
        assert requests == 0
