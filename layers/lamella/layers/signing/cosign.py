"""Signatures over an index's digest with a key pair, as `cosign sign --key` makes them and `cosign verify --key` reads.

A signature is a small document that holds the digest, signed, in an image under a tag made of the digest. It needs no
service and no clock. What cosign 3 attaches instead, a bundle, is read as well. Source: sigstore/cosign,
specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import NotFound, NotSigned
from lamella.layers.oci.documents import (
    CONFIG,
    MANIFEST,
    Descriptor,
    Digest,
    ImageConfig,
    Manifest,
    Platform,
    canonical_json,
)
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.signing import keys, sigstore
from lamella.layers.storages import open_storage
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from lamella.layers.oci.storage import ReadOnlyStorage, Storage
    from lamella.layers.signing.keys import PrivateKey, PublicKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"

_TYPE = "cosign container image signature"


def sign(reference: str, key: str, *, password: str | None = None, trust: Trust = Trust()) -> str:
    """Sign what `reference` names with the private key in the file `key` (PEM), and return the pinned reference.

    Idempotent; keeps other signatures. Raises `SignatureError` if the key can't be used, `NotFound`, `Denied`,
    `Unreachable`.
    """
    parsed = Reference.parse(reference)
    private = keys.private_key(key, password)
    with contextlib.closing(open_storage(parsed, trust, mirrors=False)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        sign_digest(storage, parsed, digest, private)
    return str(parsed.at(digest))


def sign_digest(storage: Storage, reference: Reference, digest: Digest, key: PrivateKey) -> None:
    """Signs `digest`, which is in `storage`, where `reference` is, unless `key` did already."""
    payload = canonical_json(_claim(reference, digest))
    there = _signatures(storage, digest)
    if any(_signs(key.public_key(), storage, layer, digest) for layer in there):
        return
    signature = base64.b64encode(keys.signed(key, payload)).decode()
    layers = [*there, Descriptor.of(PAYLOAD, payload, {SIGNATURE: signature})]
    config = ImageConfig(Platform("", ""), tuple(layer.digest for layer in layers)).to_json()
    manifest = Manifest(Descriptor.of(CONFIG, config), tuple(layers)).to_json()
    for media_type, content in ((PAYLOAD, payload), (CONFIG, config)):
        storage.push(Descriptor.of(media_type, content), partial(BytesIO, content))
    storage.push(Descriptor.of(MANIFEST, manifest), partial(BytesIO, manifest), tag=tag_of(digest))


def verify_signature(reference: str, key: str, *, trust: Trust = Trust()) -> str:
    """Check that the public key in the file `key` (PEM) signed what `reference` names; returns the pinned reference.

    Raises `NotSigned`, `SignatureError` if the key can't be used, `NotFound`, `Denied`, `Unreachable`.
    """
    parsed = Reference.parse(reference)
    with contextlib.closing(open_storage(parsed, trust)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        check(storage, digest, key)
    return str(parsed.at(digest))


def check(storage: ReadOnlyStorage, digest: Digest, key: str) -> None:
    """Raises `NotSigned` unless the public key in the file `key` signed `digest`, in either of cosign's forms."""
    public = keys.public_key(key)
    layers = _signatures(storage, digest)
    if any(_signs(public, storage, layer, digest) for layer in layers):
        return
    # Asked for only now: the older form is what mirrors can serve, and costs one request.
    found = sigstore.attached(storage, digest)
    if any(sigstore.signs(public, bundle, digest) for bundle in found):
        return
    if not layers and not found:
        raise NotSigned(f"{digest}: not signed; sign it with lamella push --sign KEY")
    hint = "; of an Ed25519 key, what cosign 3 signs is not read (it is Ed25519ph)" if keys.is_ed25519(public) else ""
    raise NotSigned(f"{digest}: not signed by the key in {key}, but by another; ask who pushed it{hint}")


def _signs(key: PublicKey, storage: ReadOnlyStorage, layer: Descriptor, digest: Digest) -> bool:
    payload = fetch_document(storage, layer)
    return keys.holds(key, layer.annotations.get(SIGNATURE, ""), payload) and _names(payload, digest)


def _claim(reference: Reference, digest: Digest) -> dict[str, Any]:
    name = "" if reference.is_layout else f"{reference.registry}/{reference.repository}"
    critical = {
        "identity": {"docker-reference": name},
        "image": {"docker-manifest-digest": str(digest)},
        "type": _TYPE,
    }
    return {"critical": critical, "optional": None}


def _names(payload: bytes, digest: Digest) -> bool:
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["type"] == _TYPE and critical["image"]["docker-manifest-digest"] == str(digest))
    except (ValueError, LookupError, TypeError, RecursionError):
        return False


def tag_of(digest: Digest) -> str:
    """The tag of the image that holds the signatures of `digest`."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def _signatures(storage: ReadOnlyStorage, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        descriptor = storage.resolve(tag_of(digest))
    except NotFound:
        return ()
    layers = Manifest.parse(fetch_document(storage, descriptor)).layers
    return tuple(layer for layer in layers if layer.media_type == PAYLOAD)
