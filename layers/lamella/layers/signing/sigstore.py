"""Signatures as cosign 3 writes them: a sigstore bundle, attached to what it signs.

In a bundle is a DSSE envelope, and in that a statement that names the digest. Only what a key pair signed is read here: no
certificates, no logs. Sources: sigstore/protobuf-specs, sigstore_bundle.proto; secure-systems-lab/dsse, protocol.md;
in-toto/attestation, spec/v1/statement.md.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, NamedTuple

from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.oci.documents import EMPTY, MANIFEST, Descriptor, Digest, Manifest
from lamella.layers.oci.parsing import parse_object
from lamella.layers.oci.referrers import referrers
from lamella.layers.oci.storage import fetch_document
from lamella.layers.signing import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.layers.oci.storage import ReadOnlyStorage
    from lamella.layers.signing.keys import PublicKey

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle"
"""Prefix of a bundle's media type; the format's version follows."""

_STATEMENT = "application/vnd.in-toto+json"
_SIGNED = "https://sigstore.dev/cosign/sign/v1"
MOST = 64
"""Bundles that are read at most: everyone with the right to push can attach more."""


def attached(storage: ReadOnlyStorage, digest: Digest) -> list[bytes]:
    """The bundles attached to `digest`, of any key."""
    found: list[bytes] = []
    # cosign 3.1 lists its bundles under the tag of the referrers' schema by the type of their config, which is empty.
    likely = [
        entry
        for entry in referrers(storage, Descriptor(MANIFEST, digest, 0))
        if entry.artifact_type in {"", EMPTY} or entry.artifact_type.startswith(MEDIA_TYPE)
    ]
    for entry in likely[-MOST:]:
        try:
            layers = Manifest.parse(fetch_document(storage, entry)).layers
            found += [fetch_document(storage, layer) for layer in layers if layer.media_type.startswith(MEDIA_TYPE)]
        except (InvalidContent, NotFound):
            continue  # another kind of artifact
    return found


class Signed(NamedTuple):
    """What a bundle signs, if that is the digest in question."""

    signatures: tuple[str, ...]
    """In base64."""
    content: bytes
    """The bytes that each of them signs."""
    key: str
    """Fingerprint of the key, as the bundle names it; empty if it names none."""


def parsed(bundle: bytes, digest: Digest) -> Signed | None:
    """What `bundle` signs; None unless that is `digest`. A signed statement about it, such as a report, is not."""
    try:
        value = parse_object(bundle, "a bundle")
        envelope = value["dsseEnvelope"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = tuple(str(signature["sig"]) for signature in envelope["signatures"])
        if envelope["payloadType"] != _STATEMENT or digest not in _subjects(payload):
            return None
        key = _fingerprint(value.get("verificationMaterial"))
    except (InvalidContent, ValueError, LookupError, TypeError, AttributeError):
        return None
    content = b"DSSEv1 %d %b %d %b" % (len(_STATEMENT), _STATEMENT.encode(), len(payload), payload)
    return Signed(signatures, content, key)


def signs(key: PublicKey, bundle: bytes, digest: Digest) -> bool:
    """Whether `bundle` is a signature of `digest` by `key`."""
    found = parsed(bundle, digest)
    return found is not None and any(keys.holds(key, signature, found.content) for signature in found.signatures)


def _fingerprint(material: object) -> str:
    """The fingerprint that cosign writes as the key's hint: the hash of its DER."""
    key = material.get("publicKey") if isinstance(material, dict) else None
    hint = key.get("hint") if isinstance(key, dict) else None
    try:
        raw = base64.b64decode(hint, validate=True) if isinstance(hint, str) else b""
    except ValueError:
        raw = b""
    return f"sha256:{raw.hex()}" if len(raw) == 32 else ""


def _subjects(payload: bytes) -> Iterator[Digest]:
    """The digests that a statement of cosign's signs; nothing for a statement of another kind."""
    statement = parse_object(payload, "a statement")
    if statement["predicateType"] == _SIGNED:
        for subject in statement["subject"]:
            for algorithm, value in subject["digest"].items():
                try:
                    yield Digest(algorithm, value)
                except InvalidContent:
                    continue
