"""Key pairs in PEM files: ECDSA, RSA and Ed25519. Needs the `cryptography` package: install `lamella[sign]`."""

from __future__ import annotations

import base64
import contextlib
import hashlib
from typing import TYPE_CHECKING

from lamella.layers.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError as error:
        raise SignatureError(f"can't read the key {path}: {error.strerror}") from error


def read_private_key(path: str, password: str | None = None) -> PrivateKey:
    """Load the private key in the file `path` (PEM), with `password` if it is encrypted. Raises `SignatureError`."""
    content = _read(path)
    if b"ENCRYPTED SIGSTORE" in content or b"ENCRYPTED COSIGN" in content:
        raise SignatureError(
            f"{path}: encrypted in cosign's own format; make a key with openssl genpkey -algorithm EC -pkeyopt "
            "ec_paramgen_curve:P-256, which cosign takes with import-key-pair"
        )
    with _cryptography():
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    try:
        try:
            key = load_pem_private_key(content, password.encode() if password else None)
        except TypeError:
            # Either the key is encrypted and there is no password, or the password belongs to another key.
            if not password:
                raise SignatureError(f"{path}: requires a password; set COSIGN_PASSWORD") from None
            key = load_pem_private_key(content, None)
    except ValueError:
        raise SignatureError(f"{path}: not a private key in PEM, or not its password") from None
    if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey, ed25519.Ed25519PrivateKey)):
        raise SignatureError(f"{path}: unsupported kind of key; use ECDSA, RSA or Ed25519")
    return key


def public_key(path: str) -> PublicKey:
    """Load the public key in the file `path` (PEM). Raises `SignatureError`."""
    with _cryptography():
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    try:
        key = load_pem_public_key(_read(path))
    except ValueError:
        raise SignatureError(f"{path}: not a public key in PEM") from None
    if not isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey, ed25519.Ed25519PublicKey)):
        raise SignatureError(f"{path}: unsupported kind of key; use ECDSA, RSA or Ed25519")
    return key


def is_ed25519(key: PublicKey) -> bool:
    """Whether `key` is Ed25519, which signs in two ways: the content (Ed25519) or its hash (Ed25519ph)."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return isinstance(key, ed25519.Ed25519PublicKey)


def fingerprint(key: PublicKey) -> str:
    """Return `sha256:` and the hash of the key's DER, as `openssl pkey -pubin -outform DER | sha256sum` prints it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return f"sha256:{hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"


def signed(key: PrivateKey, payload: bytes) -> bytes:
    """Sign `payload`, with SHA-256 if the kind of key leaves a choice."""
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256

    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(payload, ec.ECDSA(SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(payload, padding.PKCS1v15(), SHA256())
    return key.sign(payload)


def holds(key: PublicKey, signature: str, payload: bytes) -> bool:
    """Whether `signature` (base64) is that of `payload` by `key`, with SHA-256 or the hash of the key's curve."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512

    try:
        raw = base64.b64decode(signature, validate=True)
        if isinstance(key, ec.EllipticCurvePublicKey):
            # cosign 2 took SHA-256 for every curve, cosign 3 takes the curve's own.
            own = {384: SHA384(), 521: SHA512()}.get(key.curve.key_size, SHA256())
            try:
                key.verify(raw, payload, ec.ECDSA(own))
            except InvalidSignature:
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
        raise SignatureError(
            "signatures need the package cryptography; run pip install cryptography where Lamella is installed"
        ) from error
