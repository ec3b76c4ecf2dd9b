"""Signatures with key pairs in cosign's formats; those of other keys are refused."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lamella.layers.errors import InvalidContent, NotSigned, SignatureError
from lamella.layers.layout import OciLayout
from lamella.layers.oci import referrers
from lamella.layers.oci.documents import EMPTY, MANIFEST, Descriptor, Digest, Manifest
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.published import environment
from lamella.layers.published.copy import copy
from lamella.layers.registry.repository import Registry
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import cosign, keys, sigstore
from lamella.layers.store.document_cache import Remembered
from lamella.layers.store.store import Store
from support.distribution import distribution
from support.engines import need
from support.keys import KINDS, key_pair
from support.published import Blob, push_environment
from support.registry_simulator import RegistrySimulator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.storage import Storage

COSIGN = Path(__file__).parents[2] / "support/cosign"


@pytest.fixture
def reference(tmp_path: Path) -> str:
    push_environment(OciLayout(f"{tmp_path}/layout", create=True))
    return f"oci:{tmp_path}/layout:v1"


@pytest.mark.parametrize("kind", KINDS)
def test_signature_is_verified(tmp_path: Path, reference: str, kind: str) -> None:
    private, public = key_pair(tmp_path, "ours", kind)
    pinned = cosign.sign(reference, private)
    assert cosign.verify_signature(reference, public) == cosign.verify_signature(pinned, public) == pinned


def test_unsigned_index_is_refused(tmp_path: Path, reference: str) -> None:
    _, public = key_pair(tmp_path, "ours")
    with pytest.raises(SignatureError, match="not signed; sign it with lamella push --sign KEY"):
        cosign.verify_signature(reference, public)


def test_another_s_signature_is_refused_and_both_may_sign(tmp_path: Path, reference: str) -> None:
    ours, our_public = key_pair(tmp_path, "ours")
    theirs, their_public = key_pair(tmp_path, "theirs")
    cosign.sign(reference, theirs)
    with pytest.raises(
        SignatureError, match=r"not signed by the key in .*ours\.pub, but by another; ask who pushed it"
    ):
        cosign.verify_signature(reference, our_public)
    cosign.sign(reference, ours)
    cosign.verify_signature(reference, our_public)
    cosign.verify_signature(reference, their_public)


def test_signing_again_adds_nothing(tmp_path: Path, reference: str) -> None:
    private, _ = key_pair(tmp_path, "ours")
    pinned = cosign.sign(reference, private)
    layout = OciLayout(f"{tmp_path}/layout")
    tag = pinned.partition("@")[2].replace(":", "-") + ".sig"
    first = layout.resolve(tag)
    cosign.sign(reference, private)
    assert layout.resolve(tag) == first


def test_a_signature_of_something_else_does_not_count(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    layout = OciLayout(f"{tmp_path}/layout")
    other = push_environment(layout, "other", packages=[b"other"]).descriptor.digest
    cosign.sign(f"oci:{tmp_path}/layout:other", private)
    mine = layout.resolve("v1").digest
    # The signature's tag names its index, and everyone with the right to push can move it.
    manifest = layout.resolve(f"sha256-{other.hex}.sig")
    content = fetch_document(layout, manifest)
    layout.push(manifest, lambda: BytesIO(content), tag=f"sha256-{mine.hex}.sig")
    with pytest.raises(SignatureError, match="not signed by the key in"):
        cosign.verify_signature(reference, public)


@pytest.mark.engine
def test_openssl_verifies_what_cosign_would_read(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    with distribution() as host:
        copy(reference, f"{host}/team/envs:v1")
        pinned = cosign.sign(f"{host}/team/envs:v1", private)
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


def test_a_node_that_requires_a_signature_reads_nothing_else(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    parsed = Reference.parse(reference)
    layout = OciLayout(f"{tmp_path}/layout")
    trust = Trust(required_key=public)
    with pytest.raises(SignatureError, match="not signed"):
        environment.read_index(layout, parsed, trust)
    cosign.sign(reference, private)
    assert environment.read_index(layout, parsed, trust).environments


def test_unusable_key_is_reported(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    with pytest.raises(SignatureError, match=r"can't read the key .*: No such file"):
        cosign.sign(reference, f"{tmp_path}/none.pem")
    with pytest.raises(SignatureError, match="not a private key in PEM, or not its password"):
        cosign.sign(reference, public)
    with pytest.raises(SignatureError, match="not a public key in PEM"):
        cosign.verify_signature(reference, private)
    cosigns = tmp_path / "cosign.key"
    cosigns.write_text(
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n"
    )
    with pytest.raises(SignatureError, match="encrypted in cosign's own format; make a key with openssl genpkey"):
        cosign.sign(reference, str(cosigns))


def test_a_key_with_a_password_is_opened_with_it(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    locked = f"{tmp_path}/locked.pem"
    command = [need("openssl"), "pkey", "-in", private, "-aes256", "-passout", "pass:hunter2", "-out", locked]
    subprocess.run(command, check=True)
    with pytest.raises(SignatureError, match=r"locked\.pem: requires a password; set COSIGN_PASSWORD"):
        cosign.sign(reference, locked)
    with pytest.raises(SignatureError, match="not its password") as caught:
        cosign.sign(reference, locked, password="wrong")
    assert "wrong" not in str(caught.value)
    cosign.sign(reference, locked, password="hunter2")
    cosign.verify_signature(reference, public)


def test_a_password_that_is_set_does_not_lock_out_a_key_without_one(tmp_path: Path, reference: str) -> None:
    private, public = key_pair(tmp_path, "ours")
    cosign.sign(reference, private, password="another key's")
    cosign.verify_signature(reference, public)


@pytest.mark.parametrize(("curve", "hashed"), [("P-384", "SHA384"), ("P-384", "SHA256"), ("P-521", "SHA512")])
def test_a_larger_curve_may_sign_with_its_own_hash(tmp_path: Path, reference: str, curve: str, hashed: str) -> None:
    """cosign 2 signs SHA-256 with every curve, cosign 3 the curve's own hash."""
    command = [need("openssl"), "genpkey", "-algorithm", "EC", "-pkeyopt", f"ec_paramgen_curve:{curve}"]
    subprocess.run([*command, "-out", f"{tmp_path}/key.pem"], check=True, capture_output=True)
    command = [need("openssl"), "pkey", "-in", f"{tmp_path}/key.pem", "-pubout", "-out", f"{tmp_path}/key.pub"]
    subprocess.run(command, check=True)
    (tmp_path / "payload").write_bytes(b"payload")
    command = [need("openssl"), "dgst", f"-{hashed.lower()}", "-sign", f"{tmp_path}/key.pem", f"{tmp_path}/payload"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    public = keys.public_key(f"{tmp_path}/key.pub")
    assert keys.holds(public, base64.b64encode(raw).decode(), b"payload")
    assert not keys.holds(public, base64.b64encode(raw).decode(), b"another")


def test_message_names_ed25519ph_if_an_ed25519_key_is_required(tmp_path: Path, reference: str) -> None:
    _, public = key_pair(tmp_path, "required", "ed25519")
    other, _ = key_pair(tmp_path, "other")
    cosign.sign(reference, other)
    with pytest.raises(SignatureError, match=r"ask who pushed it; of an Ed25519 key, what cosign 3 signs is not read"):
        cosign.verify_signature(reference, public)


def cosigns(name: str) -> bytes:
    """What cosign 3.1 wrote when it signed an image: `bundle.json`, and `referrer.json` that attaches it."""
    return (COSIGN / name).read_bytes()


def push_as_cosign(storage: Storage, *, bundle: bytes, api: bool = True) -> str:
    """Pushes the image that cosign signed, with `bundle` attached; the image's digest."""
    signed = Blob(Descriptor.of(MANIFEST, cosigns("image.json")), cosigns("image.json"))
    Blob(Descriptor.of(EMPTY, b"{}"), b"{}").pushed(storage)
    signed.pushed(storage, "v1")
    made = Blob(Descriptor.of(sigstore.MEDIA_TYPE + ".v0.3+json", bundle), bundle).pushed(storage)
    manifest = replace(Manifest.parse(cosigns("referrer.json")), layers=(made.descriptor,)).to_json()
    referrer = Blob(Descriptor.of(MANIFEST, manifest), manifest).pushed(storage)
    if not api:
        # As cosign does it: with the type of the empty config.
        referrers.add(storage, signed.descriptor.digest, replace(referrer.descriptor, artifact_type=EMPTY))
    return str(signed.descriptor.digest)


def changed(content: bytes, part: str, **values: object) -> bytes:
    """A bundle with other values in its envelope, or in the statement that is signed in it."""
    bundle = json.loads(content)
    envelope = bundle["dsseEnvelope"]
    if part == "statement":
        statement = json.loads(base64.b64decode(envelope["payload"])) | values
        envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    else:
        envelope |= values
    return json.dumps(bundle).encode()


@pytest.mark.parametrize("api", [True, False], ids=["api", "tag"])
def test_what_cosign_3_signed_is_verified(tmp_path: Path, api: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    _, other = key_pair(tmp_path, "other")
    simulator = RegistrySimulator()
    simulator.referrers_api = api
    with simulator.serving():
        registry = Registry(simulator.host, "team/envs")
        digest = push_as_cosign(registry, bundle=cosigns("bundle.json"), api=api)
        reference = f"{simulator.host}/team/envs:v1"
        assert cosign.verify_signature(reference, f"{COSIGN}/key.pub") == f"{reference}@{digest}"
        with pytest.raises(SignatureError, match="not signed by the key in"):
            cosign.verify_signature(reference, other)
        # On a node, too, where documents are remembered.
        store = Store(str(tmp_path / "store"))
        trust = Trust(required_key=f"{COSIGN}/key.pub")
        with pytest.raises(InvalidContent, match="an artifact of type application/x, not an environment"):
            environment.read_index(Remembered(store, lambda: registry), Reference.parse(reference), trust)


def test_either_form_by_the_required_key_is_enough(tmp_path: Path) -> None:
    private, public = key_pair(tmp_path, "ours")
    layout = OciLayout(f"{tmp_path}/layout", create=True)
    push_as_cosign(layout, bundle=cosigns("bundle.json"), api=False)
    reference = f"oci:{tmp_path}/layout:v1"
    cosign.sign(reference, private)
    cosign.verify_signature(reference, public)
    cosign.verify_signature(reference, f"{COSIGN}/key.pub")


@pytest.mark.parametrize(
    "bundle",
    [
        changed(cosigns("bundle.json"), "statement", subject=[{"digest": {"sha256": "0" * 64}}]),
        changed(cosigns("bundle.json"), "statement", predicateType="https://slsa.dev/provenance/v1"),
        changed(cosigns("bundle.json"), "statement", predicate={"more": 1}),
        changed(cosigns("bundle.json"), "envelope", payloadType="text/plain"),
        changed(cosigns("bundle.json"), "envelope", signatures=[]),
        changed(cosigns("bundle.json"), "envelope", signatures=[{"sig": "?"}, 7]),
        changed(cosigns("bundle.json"), "envelope", payload=7),
        b"[" * 100_000,
        b"{}",
        # Of a key twice, one reader takes the first and another the last.
        cosigns("bundle.json").replace(b"{", b'{"dsseEnvelope": {},', 1),
        cosigns("bundle.json").replace(b"{", b'{"note": "\\ud800",', 1),
        cosigns("bundle.json").replace(b"{", b'{"note": NaN,', 1),
    ],
    ids=[
        *("digest", "kind", "changed", "type", "unsigned", "garbage", "number", "deep", "empty"),
        *("a key twice", "a surrogate", "not a number"),
    ],
)
def test_a_bundle_that_signs_something_else_does_not_count(tmp_path: Path, bundle: bytes) -> None:
    layout = OciLayout(f"{tmp_path}/layout", create=True)
    push_as_cosign(layout, bundle=bundle, api=False)
    with pytest.raises(SignatureError, match="not signed by the key in"):
        cosign.verify_signature(f"oci:{tmp_path}/layout:v1", f"{COSIGN}/key.pub")


def test_signed_report_is_not_a_signature(tmp_path: Path) -> None:
    """Attesting a fault of an image does not sign the image."""
    private, public = key_pair(tmp_path, "ours")
    kind = "application/vnd.in-toto+json"
    for predicate, counts in (("https://sigstore.dev/cosign/sign/v1", True), ("https://cosign.sigstore.dev/x", False)):
        digest = Digest.of(b"image")
        payload = json.dumps({"subject": [{"digest": {"sha256": digest.hex}}], "predicateType": predicate}).encode()
        encoded = f"DSSEv1 {len(kind)} {kind} {len(payload)} {payload.decode()}".encode()
        raw = keys.signed(keys.read_private_key(private), encoded)
        envelope = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": [{"sig": base64.b64encode(raw).decode()}],
        }
        bundle = json.dumps({"dsseEnvelope": envelope}).encode()
        assert sigstore.signs(keys.public_key(public), bundle, digest) == counts


@pytest.fixture
def simulator() -> Iterator[RegistrySimulator]:
    with RegistrySimulator().serving() as running:
        yield running


@pytest.fixture
def copied(tmp_path: Path, reference: str, simulator: RegistrySimulator) -> tuple[str, str, str]:
    """A reference that was signed in its repository, a copy of it in another one, and the public key."""
    private, public = key_pair(tmp_path, "ours")
    signed, elsewhere = f"{simulator.host}/team/envs:v1", f"{simulator.host}/other/envs:v1"
    copy(reference, signed)
    cosign.sign(signed, private)
    copy(signed, elsewhere)
    return signed, elsewhere, public


def test_a_signature_counts_in_every_repository_unless_an_identity_is_required(copied: tuple[str, str, str]) -> None:
    signed, elsewhere, public = copied
    cosign.verify_signature(elsewhere, public)
    trust = Trust(required_identity=cosign.SAME)
    cosign.verify_signature(signed, public, trust=trust)
    host = signed.partition("/")[0]
    with pytest.raises(
        NotSigned,
        match=rf"^{elsewhere}: its signature names {host}/team/envs, not {host}/other/envs; sign it here, or require",
    ):
        cosign.verify_signature(elsewhere, public, trust=trust)


@pytest.mark.slow
def test_a_copy_is_accepted_under_the_identity_that_it_was_signed_with(
    copied: tuple[str, str, str], tmp_path: Path
) -> None:
    signed, elsewhere, public = copied
    host = signed.partition("/")[0]
    folder = copy(elsewhere, f"oci:{tmp_path}/carried:v1").reference
    for identity in (f"{host}/team/envs", f"{host}/team/*", f"{host}/*"):
        for place in (signed, elsewhere, folder):
            cosign.verify_signature(place, public, trust=Trust(required_identity=identity))
    for identity in (f"{host}/team", f"{host}/team/env", f"{host}/tea/*", "ghcr.io/team/envs", host):
        with pytest.raises(NotSigned, match=rf"its signature names {host}/team/envs, not "):
            cosign.verify_signature(signed, public, trust=Trust(required_identity=identity))
    with pytest.raises(SignatureError, match="a folder is not a repository that a signature can name"):
        cosign.verify_signature(folder, public, trust=Trust(required_identity=cosign.SAME))


def test_a_signature_made_in_each_place_satisfies_each(copied: tuple[str, str, str]) -> None:
    signed, elsewhere, public = copied
    trust = Trust(required_identity=cosign.SAME)
    cosign.sign(elsewhere, public.replace(".pub", ".pem"))
    cosign.verify_signature(elsewhere, public, trust=trust)
    cosign.verify_signature(signed, public, trust=trust)


def test_a_bundle_names_no_repository(tmp_path: Path) -> None:
    layout = OciLayout(f"{tmp_path}/layout", create=True)
    push_as_cosign(layout, bundle=cosigns("bundle.json"), api=False)
    with pytest.raises(NotSigned, match=r"its signature names no repository, not ghcr\.io/team/envs"):
        cosign.verify_signature(
            f"oci:{tmp_path}/layout:v1", f"{COSIGN}/key.pub", trust=Trust(required_identity="ghcr.io/team/envs")
        )


def test_an_identity_without_a_key_is_refused(reference: str) -> None:
    with pytest.raises(SignatureError, match="no key is required; add --require-signature KEY"):
        environment.read_index(
            OciLayout(reference.split(":")[1]), Reference.parse(reference), Trust(required_identity="reference")
        )


@pytest.mark.parametrize(
    ("identity", "wanted", "answer"),
    [
        ("index.docker.io/team/envs", "docker.io/team/envs", True),
        ("docker.io/team/envs", "index.docker.io/team/envs", True),
        ("ghcr.io/team/envs:v1", "ghcr.io/team/envs", True),
        ("localhost:5000/envs", "localhost:5000/envs", True),
        ("localhost:5000/envs:v1@sha256:00", "localhost:5000/envs", True),
        ("ghcr.io/team/envs", "ghcr.io/team/envs/x", False),
        ("ghcr.io/team", "ghcr.io/team/*", False),
        ("", "ghcr.io/team/*", False),
    ],
)
def test_an_identity_is_compared_as_cosign_writes_it(identity: str, wanted: str, answer: bool) -> None:
    assert cosign.is_named(identity, wanted) is answer


@pytest.mark.slow
def test_signatures_are_listed_with_their_keys(tmp_path: Path, copied: tuple[str, str, str]) -> None:
    signed, _, public = copied
    other, other_public = key_pair(tmp_path, "other")
    cosign.sign(signed, other)
    ours, theirs = (keys.fingerprint(keys.public_key(path)) for path in (public, other_public))
    command = f"openssl pkey -pubin -in {public} -outform DER | openssl dgst -sha256 -r"
    printed = subprocess.run(["sh", "-c", command], check=True, capture_output=True, text=True).stdout
    assert ours == f"sha256:{printed.split()[0]}"
    parsed = Reference.parse(signed)
    registry = Registry(parsed.registry, parsed.repository)
    digest = registry.resolve("v1").digest
    name = f"{parsed.registry}/{parsed.repository}"
    assert cosign.signatures(registry, digest, Trust()) == (
        cosign.Signature(ours, False, name),
        cosign.Signature(theirs, False, name),
    )
    assert cosign.signatures(registry, digest, Trust(required_key=other_public)) == (
        cosign.Signature(ours, False, name),
        cosign.Signature(theirs, True, name),
    )
    assert cosign.signed_by(registry, digest, keys.public_key(public))
    registry.close()


def test_a_bundle_is_listed_with_the_key_that_it_names(tmp_path: Path) -> None:
    layout = OciLayout(f"{tmp_path}/layout", create=True)
    digest = Digest.parse(push_as_cosign(layout, bundle=cosigns("bundle.json"), api=False))
    fingerprint = keys.fingerprint(keys.public_key(f"{COSIGN}/key.pub"))
    for trust, verified in ((Trust(), False), (Trust(required_key=f"{COSIGN}/key.pub"), True)):
        assert cosign.signatures(layout, digest, trust) == (cosign.Signature(fingerprint, verified, ""),)
