"""Signatures over an index's digest with a key pair, as `cosign sign --key` makes them and `cosign verify --key` reads.

A signature is a small document that holds the digest, signed, in an image under a tag made of the digest. It needs no
service and no clock. Needs the `cryptography` package: install `lamella[sign]`. Source: sigstore/cosign,
specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import NotFound, SignatureError
from lamella.layers.oci import CONFIG, MANIFEST, Descriptor, Digest, ImageConfig, Manifest, Platform, canonical_json
from lamella.layers.reference import Reference
from lamella.layers.storage import fetch_document, open_storage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    from lamella.layers.storage import ReadOnlyStorage

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"

_TYPE = "cosign container image signature"


def sign(reference: str, key: str, *, password: str | None = None, insecure: bool = False) -> str:
    """Signs what `reference` names with the private key in the file `key` (PEM); returns the pinned reference.

    Signatures that are there stay. Raises `SignatureError` for a key that can't be used, and what storages raise.
    """
    parsed = Reference.parse(reference)
    private = _private_key(key, password)
    with contextlib.closing(open_storage(parsed, insecure=insecure, mirrors=False)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        payload = canonical_json(_claim(parsed, digest))
        there = _signatures(storage, digest)
        if any(_signs(private.public_key(), storage, layer, digest) for layer in there):
            return str(parsed.at(digest))
        signature = base64.b64encode(_signed(private, payload)).decode()
        layers = [*there, Descriptor.of(PAYLOAD, payload, {SIGNATURE: signature})]
        config = ImageConfig(Platform("", ""), tuple(layer.digest for layer in layers)).to_json()
        manifest = Manifest(Descriptor.of(CONFIG, config), tuple(layers)).to_json()
        for media_type, content in ((PAYLOAD, payload), (CONFIG, config)):
            storage.push(Descriptor.of(media_type, content), partial(BytesIO, content))
        storage.push(Descriptor.of(MANIFEST, manifest), partial(BytesIO, manifest), tag=tag_of(digest))
    return str(parsed.at(digest))


def verify(reference: str, key: str, *, insecure: bool = False) -> str:
    """Checks that the public key in the file `key` (PEM) signed what `reference` names; returns the pinned reference."""
    parsed = Reference.parse(reference)
    with contextlib.closing(open_storage(parsed, insecure=insecure)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        check(storage, digest, key)
    return str(parsed.at(digest))


def check(storage: ReadOnlyStorage, digest: Digest, key: str) -> None:
    """Raises `SignatureError` unless the public key in the file `key` signed `digest`."""
    public = _public_key(key)
    layers = _signatures(storage, digest)
    if not layers:
        raise SignatureError(f"{digest} is not signed: sign it with lamella push --sign KEY")
    if not any(_signs(public, storage, layer, digest) for layer in layers):
        raise SignatureError(f"{digest} is signed, and not by the key in {key}: ask who pushed it")


def _signs(key: PublicKey, storage: ReadOnlyStorage, layer: Descriptor, digest: Digest) -> bool:
    payload = fetch_document(storage, layer)
    return _holds(key, layer.annotations.get(SIGNATURE, ""), payload) and _names(payload, digest)


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
    except (ValueError, LookupError, TypeError):
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


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise SignatureError(f"can't read the key {path}: {error.strerror}") from error


def _private_key(path: str, password: str | None) -> PrivateKey:
    content = _read(path)
    if b"ENCRYPTED SIGSTORE" in content or b"ENCRYPTED COSIGN" in content:
        raise SignatureError(
            f"{path} is in cosign's own format: make a key with openssl genpkey -algorithm EC -pkeyopt "
            "ec_paramgen_curve:P-256, which cosign takes with import-key-pair"
        )
    with _cryptography():
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        key = load_pem_private_key(content, password.encode() if password else None)
    except (ValueError, TypeError):
        raise SignatureError(f"{path} is no private key in PEM, or its password is another") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise SignatureError(f"{path} is a key of a kind that can't sign: want ECDSA, RSA or Ed25519")
    return key


def _public_key(path: str) -> PublicKey:
    with _cryptography():
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        key = load_pem_public_key(_read(path))
    except ValueError:
        raise SignatureError(f"{path} is no public key in PEM") from None
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        raise SignatureError(f"{path} is a key of a kind that can't sign: want ECDSA, RSA or Ed25519")
    return key


def _signed(key: PrivateKey, payload: bytes) -> bytes:
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(payload, ec.ECDSA(SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(payload, padding.PKCS1v15(), SHA256())
    return key.sign(payload)


def _holds(key: PublicKey, signature: str, payload: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(raw, payload, ec.ECDSA(SHA256()))
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(raw, payload, padding.PKCS1v15(), SHA256())
        else:
            key.verify(raw, payload)
    except (InvalidSignature, ValueError):
        return False
    return True


@contextlib.contextmanager
def _cryptography() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise SignatureError("signatures need the cryptography package: install lamella[sign]") from error
