"""Private authorities: from the given trust, from certs.d, and a clear word where a registry can't be trusted."""

from __future__ import annotations

import shutil
import ssl
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import CredentialsError, Denied, Unreachable
from lamella.layers.registry.repository import Registry, endpoint
from lamella.layers.registry.retry import Patience
from lamella.layers.trust import Trust
from support.authority import Authority, authority
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
    registry = Registry(host, "team/envs", trust=trust, patience=Patience(tries=1))
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


def test_the_authorities_of_the_system_may_be_replaced(
    home: Path, simulator: RegistrySimulator, private: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates(home, simulator.host)
    monkeypatch.setenv("SSL_CERT_FILE", private.certificate)
    use(simulator.host)


def test_a_registry_that_cant_be_trusted_is_told_with_what_to_do(home: Path, simulator: RegistrySimulator) -> None:
    certificates(home, simulator.host)
    with pytest.raises(Unreachable, match=r"certificate not trusted: .*; set LAMELLA_CA_FILE"):
        use(simulator.host)


def test_a_client_s_certificate_in_certs_d_is_shown(home: Path, private: Authority) -> None:
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


def test_an_upload_does_not_go_on_in_the_clear(home: Path, simulator: RegistrySimulator, private: Authority) -> None:
    shutil.copy(private.certificate, certificates(home, simulator.host) / "ca.crt")
    # What a registry says whose proxy does not tell it that it was asked over TLS.
    where = f"http://{simulator.host}/v2/team/envs/blobs/uploads/5?state=secret"
    simulator.faults = [Fault("POST", 1, 202, {"Location": where})]
    with pytest.raises(Denied, match=r"without HTTPS; set X-Forwarded-Proto in its proxy") as caught:
        use(simulator.host)
    assert "secret" not in str(caught.value)


def test_an_authority_that_is_none_is_told(home: Path, tmp_path: Path, simulator: RegistrySimulator) -> None:
    certificates(home, simulator.host)
    (tmp_path / "none.crt").write_text("no certificate")
    for name in ("none.crt", "gone.crt"):
        with pytest.raises(CredentialsError, match=rf"{name}: not a PEM file of certificate authorities"):
            use(simulator.host, Trust(ca_file=str(tmp_path / name)))


@pytest.mark.parametrize(
    ("registry", "expected"),
    [
        ("ghcr.io", "https://ghcr.io/v2"),
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
        ("[::1]:5000", "http://[::1]:5000/v2"),
        ("localhost.example", "https://localhost.example/v2"),
        ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
    ],
)
def test_plain_http_is_for_loopback_only_unless_asked_for(registry: str, expected: str) -> None:
    assert endpoint(registry) == expected
    assert endpoint(registry, Trust(insecure=True)).startswith("http://")
