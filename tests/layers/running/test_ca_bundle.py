"""Certificate authorities where an environment's OpenSSL finds none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lamella.layers.running.ca_bundle import certificate_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    certifi = tmp_path / "env/lib/python3.12/site-packages/certifi/cacert.pem"
    certifi.parent.mkdir(parents=True)
    certifi.write_text("CERTIFICATES")
    return tmp_path / "env"


def asked(prefix: Path, looks: tuple[str, ...] | None, *bundles: Path, **before: str) -> str:
    return certificate_file(str(prefix), looks, before, [str(path) for path in bundles])


def test_the_machine_s_own_bundle_serves_an_openssl_that_looks_elsewhere(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle.crt").write_text("CERTIFICATES")
    looks = (f"{tmp_path}/no/cert.pem", f"{tmp_path}/no/certs")
    assert asked(prefix, looks, tmp_path / "none.crt", tmp_path / "bundle.crt") == f"{tmp_path}/bundle.crt"
    assert asked(prefix, (), tmp_path / "bundle.crt") == f"{tmp_path}/bundle.crt", "it looks where no node has any"


def test_certifi_of_the_environment_serves_without_a_bundle_on_the_machine(prefix: Path, tmp_path: Path) -> None:
    assert asked(prefix, (f"{tmp_path}/no",)) == f"{prefix}/lib/python3.12/site-packages/certifi/cacert.pem"
    assert asked(tmp_path, (f"{tmp_path}/no",)) == ""


def test_nothing_is_set_if_openssl_finds_certificates(prefix: Path, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    assert asked(prefix, (f"{tmp_path}/cert.pem", str(folder))), "a folder without certificates does not count"
    (folder / "a.pem").write_text("CERTIFICATE")
    assert asked(prefix, (f"{tmp_path}/cert.pem", str(folder))) == ""
    assert asked(prefix, None) == "", "the environment brings its own"


def test_variables_of_the_user_stay(prefix: Path) -> None:
    assert asked(prefix, (), SSL_CERT_FILE="/mine.pem") == ""
    assert asked(prefix, (), SSL_CERT_DIR="/mine") == ""
