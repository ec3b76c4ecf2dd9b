"""Signatures with key pairs: cosign's format, refused where they are not the required key's."""

from __future__ import annotations

import base64
import json
import subprocess
from io import BytesIO
from typing import TYPE_CHECKING

import pytest

from lamella.layers import published, signature
from lamella.layers.copy import copy
from lamella.layers.errors import SignatureError
from lamella.layers.layout import OciLayout
from lamella.layers.oci import Manifest
from lamella.layers.reference import Reference
from lamella.layers.registry import Registry
from lamella.layers.storage import fetch_document
from support.distribution import distribution
from support.engines import need
from support.images import push_environment
from support.keys import KINDS, key_pair

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def reference(tmp_path: Path) -> str:
    push_environment(OciLayout(f"{tmp_path}/layout", create=True))
    return f"oci:{tmp_path}/layout:v1"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_signed_is_verified(tmp_path: Path, reference: str, kind: str) -> None:
    private, public = key_pair(tmp_path, "ours", kind)
    pinned = signature.sign(reference, private)
    assert signature.verify(reference, public) == signature.verify(pinned, public) == pinned


def test_what_was_not_signed_is_refused(tmp_path: Path, reference: str) -> None:
    _, public = key_pair(tmp_path, "ours")
    with pytest.raises(SignatureError, match="is not signed: sign it with lamella push --sign KEY"):
        signature.verify(reference, public)


def test_another_s_signature_is_refused_and_both_may_sign(tmp_path: Path, reference: str) -> None:
    ours, our_public = key_pair(tmp_path, "ours")
    theirs, their_public = key_pair(tmp_path, "theirs")
    signature.sign(reference, theirs)
    with pytest.raises(SignatureError, match=r"is signed, and not by the key in .*ours\.pub: ask who pushed it"):
        signature.verify(reference, our_public)
    signature.sign(reference, ours)
    signature.verify(reference, our_public)
    signature.verify(reference, their_public)


def test_signing_again_adds_nothing(tmp_path: Path, reference: str) -> None:
    private, _ = key_pair(tmp_path, "ours")
    pinned = signature.sign(reference, private)
    layout = OciLayout(f"{tmp_path}/layout")
    tag = pinned.partition("@")[2].replace(":", "-") + ".sig"
    first = layout.resolve(tag)
    signature.sign(reference, private)
    assert layout.resolve(tag) == first


def test_a_signature_of_something_else_does_not_count(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    layout = OciLayout(f"{tmp_path}/layout")
    other = push_environment(layout, "other", packages=[b"other"]).descriptor.digest
    signature.sign(f"oci:{tmp_path}/layout:other", private)
    mine = layout.resolve("v1").digest
    # The signature's own tag says what it is for; whoever may push may move it.
    manifest = layout.resolve(f"sha256-{other.hex}.sig")
    content = fetch_document(layout, manifest)
    layout.push(manifest, lambda: BytesIO(content), tag=f"sha256-{mine.hex}.sig")
    with pytest.raises(SignatureError, match="is signed, and not by the key in"):
        signature.verify(reference, public)


def test_openssl_verifies_what_cosign_would_read(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    with distribution() as host:
        copy(reference, f"{host}/team/envs:v1")
        pinned = signature.sign(f"{host}/team/envs:v1", private)
        digest = pinned.partition("@")[2]
        registry = Registry(host, "team/envs")
        manifest = Manifest.parse(fetch_document(registry, registry.resolve(digest.replace(":", "-") + ".sig")))
        payload = fetch_document(registry, manifest.layers[0])
        registry.close()
    assert manifest.layers[0].media_type == "application/vnd.dev.cosign.simplesigning.v1+json"
    assert json.loads(payload) == {
        "critical": {
            "identity": {"docker-reference": f"{host}/team/envs"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    raw = base64.b64decode(manifest.layers[0].annotations["dev.cosignproject.cosign/signature"])
    (tmp_path / "raw").write_bytes(raw)
    (tmp_path / "payload").write_bytes(payload)
    command = [need("openssl"), "dgst", "-sha256", "-verify", public, "-signature", f"{tmp_path}/raw"]
    subprocess.run([*command, f"{tmp_path}/payload"], check=True, capture_output=True)


def test_a_node_that_requires_a_signature_reads_nothing_else(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, public = key_pair(tmp_path, "ours")
    parsed = Reference.parse(reference)
    layout = OciLayout(f"{tmp_path}/layout")
    monkeypatch.setenv("LAMELLA_REQUIRE_SIGNATURE", public)
    with pytest.raises(SignatureError, match="is not signed"):
        published.read(layout, parsed)
    signature.sign(reference, private)
    assert published.read(layout, parsed).environments


def test_a_key_that_cant_be_used_is_told(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    with pytest.raises(SignatureError, match=r"can't read the key .*: No such file"):
        signature.sign(reference, f"{tmp_path}/none.pem")
    with pytest.raises(SignatureError, match="is no private key in PEM, or its password is another"):
        signature.sign(reference, public)
    with pytest.raises(SignatureError, match="is no public key in PEM"):
        signature.verify(reference, private)
    cosigns = tmp_path / "cosign.key"
    cosigns.write_text(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    )
    with pytest.raises(SignatureError, match="is in cosign's own format: make a key with openssl genpkey"):
        signature.sign(reference, str(cosigns))


def test_a_key_with_a_password_is_opened_with_it(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    locked = f"{tmp_path}/locked.pem"
    command = [need("openssl"), "pkey", "-in", private, "-aes256", "-passout", "pass:hunter2", "-out", locked]
    subprocess.run(command, check=True)
    with pytest.raises(SignatureError, match="its password is another") as caught:
        signature.sign(reference, locked, password="wrong")
    assert "wrong" not in str(caught.value)
    signature.sign(reference, locked, password="hunter2")
    signature.verify(reference, public)
