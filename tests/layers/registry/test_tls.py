"""TLS: private authorities, client certificates, and the scheme of a registry on loopback."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import CredentialsError, Denied, InvalidContent, Unreachable
from lamella.layers.registry.endpoint import endpoint
from lamella.layers.registry.repository import Registry
from lamella.layers.registry.retry import Patience
from lamella.layers.registry.scheme import spoken
from lamella.layers.registry.url import Address
from lamella.layers.settings.trust import Trust
from support.authority import Authority, authority
from support.distribution import distribution
from support.engines import need
from support.homes import fresh_home
from support.published import push_image
from support.registry_simulator import Fault, RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def simulator(private: Authority) -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving(private.server) as running:
        yield running


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return fresh_home(tmp_path, monkeypatch)


def certificates(home: Path, host: str) -> Path:
    folder = home / ".config" / "containers" / "certs.d" / host
    folder.mkdir(parents=True)
    return folder


def use(host: str, trust: Trust = Trust()) -> None:
    registry = Registry(host, "team/envs", trust=trust, patience=Patience(tries=2, first=0.001))
    try:
        push_image(registry, [b"content"], "v1")
        assert registry.tags() == ["v1"]
    finally:
        registry.close()


def test_an_authority_in_certs_d_is_trusted(home: Path, simulator: RegistrySimulator, private: Authority) -> None:
    shutil.copy(private.certificate, certificates(home, simulator.host) / "ca.crt")
    use(simulator.host)


def test_an_authority_of_the_given_trust_is_trusted(
    home: Path, simulator: RegistrySimulator, private: Authority
) -> None:
    certificates(home, simulator.host)
    use(simulator.host, Trust(ca_file=private.certificate))


def test_the_authorities_of_the_system_can_be_replaced(
    home: Path, simulator: RegistrySimulator, private: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates(home, simulator.host)
    monkeypatch.setenv("SSL_CERT_FILE", private.certificate)
    use(simulator.host)


def test_an_untrusted_certificate_is_reported_with_the_next_step(home: Path, simulator: RegistrySimulator) -> None:
    certificates(home, simulator.host)
    with pytest.raises(Unreachable, match=r"certificate not trusted: .*; set LAMELLA_CA_FILE"):
        use(simulator.host)


def test_a_client_certificate_in_certs_d_is_sent(home: Path, private: Authority) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*private.own)
    server.load_verify_locations(private.certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    with RegistrySimulator().serving(server) as simulator:
        folder = certificates(home, simulator.host)
        shutil.copy(private.certificate, folder / "ca.crt")
        with pytest.raises(Unreachable, match=rf"{simulator.host}"):
            use(simulator.host)
        shutil.copy(private.own[0], folder / "client.cert")
        with pytest.raises(CredentialsError, match=r"client\.key: not a client certificate and key in PEM"):
            use(simulator.host)
        shutil.copy(private.own[1], folder / "client.key")
        use(simulator.host)


def test_an_upload_does_not_continue_in_the_clear(home: Path, simulator: RegistrySimulator, private: Authority) -> None:
    shutil.copy(private.certificate, certificates(home, simulator.host) / "ca.crt")
    # So answers a registry behind a proxy that sends no X-Forwarded-Proto.
    where = f"http://{simulator.host}/v2/team/envs/blobs/uploads/5?state=secret"
    simulator.faults = [Fault("POST", 1, 202, {"Location": where})]
    with pytest.raises(Denied, match=r"without HTTPS; set X-Forwarded-Proto in its proxy") as caught:
        use(simulator.host)
    assert "secret" not in str(caught.value)


def test_an_invalid_authority_is_reported(home: Path, tmp_path: Path, simulator: RegistrySimulator) -> None:
    certificates(home, simulator.host)
    (tmp_path / "none.crt").write_text("no certificate")
    for name in ("none.crt", "gone.crt"):
        with pytest.raises(CredentialsError, match=rf"{name}: not a PEM file of certificate authorities"):
            use(simulator.host, Trust(ca_file=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("ghcr.io", "ghcr.io/v2"),
        ("docker.io", "registry-1.docker.io/v2"),
        ("localhost:5000", "localhost:5000/v2"),
        ("[::1]:5000", "[::1]:5000/v2"),
    ],
)
def test_plain_http_must_be_asked_for(registry: str, expected: str) -> None:
    assert endpoint(registry) == f"https://{expected}"
    assert endpoint(registry, Trust(insecure=True)) == f"http://{expected}"


# Loopback


def test_a_registry_on_loopback_is_asked_over_tls_first(simulator: RegistrySimulator, private: Authority) -> None:
    use(simulator.host, Trust(ca_file=private.certificate))
    assert simulator.requests


def test_a_registry_on_loopback_that_refuses_tls_is_asked_in_plain_http() -> None:
    with RegistrySimulator().serving() as simulator:
        use(simulator.host)
        assert simulator.requests


def test_a_certificate_that_fails_leads_to_no_plain_http(simulator: RegistrySimulator) -> None:
    with pytest.raises(Unreachable, match=r"certificate not trusted: .*; set LAMELLA_CA_FILE to its authority"):
        use(simulator.host)
    assert not simulator.requests


def test_a_registry_with_certificates_in_certs_d_is_asked_over_tls_only(home: Path) -> None:
    with RegistrySimulator().serving() as simulator:
        certificates(home, simulator.host)
        with pytest.raises(Unreachable, match=r"speaks plain HTTP, not HTTPS; use --insecure to allow that"):
            use(simulator.host)
        assert not simulator.requests


def test_a_registry_that_requires_a_client_s_certificate_speaks_tls(home: Path, private: Authority) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*private.own)
    server.load_verify_locations(private.certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    server.maximum_version = ssl.TLSVersion.TLSv1_2
    with RegistrySimulator().serving(server) as simulator:
        with pytest.raises(Unreachable, match=r"TLS failed|connection lost"):
            use(simulator.host, Trust(ca_file=private.certificate))
        assert spoken(Address.parse(f"https://{simulator.host}", "")) == "https"


def test_a_loopback_port_is_asked_again_after_its_server_changed(private: Authority) -> None:
    trust = Trust(ca_file=private.certificate)
    with RegistrySimulator().serving() as simulator:
        use(simulator.host)
        port = int(simulator.host.rpartition(":")[2])
    with RegistrySimulator().serving(private.server, port=port) as simulator:
        use(simulator.host, trust)
        assert simulator.requests
    with RegistrySimulator().serving(port=port) as simulator:
        use(simulator.host, trust)
        assert simulator.requests


def test_a_registry_on_loopback_that_is_down_is_reported() -> None:
    with RegistrySimulator().serving() as simulator:
        host = simulator.host
    with pytest.raises(Unreachable, match=rf"{host}: cannot connect: .*; check the registry's name, and that it is up"):
        use(host)


@pytest.mark.engine
def test_a_registry_with_tls_on_loopback_is_reached_as_skopeo_reaches_it(private: Authority, tmp_path: Path) -> None:
    with distribution(tls=private.own) as host:
        use(host, Trust(ca_file=private.certificate))
        (tmp_path / "certs").mkdir()
        shutil.copy(private.certificate, tmp_path / "certs" / "ca.crt")
        command = [need("skopeo"), "list-tags", "--cert-dir", str(tmp_path / "certs"), f"docker://{host}/team/envs"]
        assert b'"v1"' in subprocess.check_output(command)
        with pytest.raises(
            InvalidContent, match=r"answered 400 to plain HTTP.*; leave out --insecure if it speaks HTTPS"
        ):
            use(host, Trust(insecure=True))


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"Client sent an HTTP request to an HTTPS server.\n", "text/plain; charset=utf-8", "Client sent an HTTP"),
        (
            b"<html><head><title>400 The plain HTTP request was sent to HTTPS port</title></head>",
            "text/html",
            "400 The plain HTTP request was sent to HTTPS port",
        ),
    ],
)
def test_the_reason_of_a_server_that_expects_https_is_shown(body: bytes, content_type: str, reason: str) -> None:
    with RegistrySimulator().serving() as simulator:
        simulator.faults = [Fault("", 9, 400, {"Content-Type": content_type}, body)]
        with pytest.raises(InvalidContent, match=rf"400 to plain HTTP \({reason}.*\); leave out --insecure"):
            use(simulator.host, Trust(insecure=True))


@pytest.mark.slow
def test_an_expired_certificate_and_one_of_another_host_are_told_apart(tmp_path: Path) -> None:
    expired = authority(tmp_path, days=-1)
    with (
        RegistrySimulator().serving(expired.server) as simulator,
        pytest.raises(Unreachable, match=r"certificate expired; ask the registry's operator to renew it"),
    ):
        use(simulator.host, Trust(ca_file=expired.certificate))
    other = authority(tmp_path, names="DNS:registry.example")
    with (
        RegistrySimulator().serving(other.server) as simulator,
        pytest.raises(Unreachable, match=r"certificate of another host: .*'localhost'; use the name in the cert"),
    ):
        use(simulator.host, Trust(ca_file=other.certificate))
