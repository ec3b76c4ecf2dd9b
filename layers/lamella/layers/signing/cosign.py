"""Signatures over an index's digest with a key pair, as `cosign sign --key` makes them and `cosign verify --key` reads.

A signature is a small document that holds the digest, signed, in an image under a tag made of the digest. It needs no
service and no clock. What cosign 3 attaches instead, a bundle, is read as well. Source: sigstore/cosign,
specs/SIGNATURE_SPEC.md.
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

from lamella.layers.errors import InvalidContent, NotFound, NotSigned, SignatureError
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
from lamella.layers.oci.parsing import parse_object
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.storage import fetch_document
from lamella.layers.settings.policy import machine_policy
from lamella.layers.settings.trust import Trust
from lamella.layers.signing import keys, sigstore
from lamella.layers.storages import open_storage
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.layers.oci.storage import ReadOnlyStorage, Storage
    from lamella.layers.signing.keys import PrivateKey, PublicKey

PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE = "dev.cosignproject.cosign/signature"
SIGNER = "dev.lamella.signer"
"""Annotation with the key's fingerprint: a hint for people, since a signature does not hold its key."""
SAME = "reference"
"""The required identity that is the repository which is read."""

_TYPE = "cosign container image signature"


def sign(reference: str, key: str, *, password: str | None = None, trust: Trust = Trust()) -> str:
    """Sign what `reference` names with the private key in the file `key` (PEM), and return the pinned reference.

    Idempotent; keeps other signatures. Raises `SignatureError` if the key can't be used, `NotFound`, `Denied`,
    `Unreachable`.
    """
    parsed = Reference.parse(reference)
    private = keys.read_private_key(key, password)
    with contextlib.closing(open_storage(parsed, trust, mirrors=False)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        sign_digest(storage, parsed, digest, private)
    return str(parsed.at(digest))


def sign_digest(storage: Storage, reference: Reference, digest: Digest, key: PrivateKey) -> None:
    """Signs `digest`, which is in `storage`, where `reference` is, unless `key` did already for this repository."""
    payload = canonical_json(_claim(reference, digest))
    there = _layers(storage, digest)
    recent = [(layer, _claim_of(storage, layer, digest)) for layer in there[-sigstore.MOST :]]
    # A signature that came with a copy names the repository that it was made in.
    own = _hub(_name_of(reference))
    if any(claim and _hub(claim.identity) == own and claim.is_by(key.public_key()) for _, claim in recent):
        return
    signature = base64.b64encode(keys.signed(key, payload)).decode()
    about = {SIGNATURE: signature, SIGNER: keys.fingerprint(key.public_key())}
    # A manifest that names a payload which is gone would be refused.
    kept = [*there[: -sigstore.MOST], *(layer for layer, claim in recent if claim)]
    layers = [*kept, Descriptor.of(PAYLOAD, payload, about)]
    config = ImageConfig(Platform("", ""), tuple(layer.digest for layer in layers)).to_json()
    manifest = Manifest(Descriptor.of(CONFIG, config), tuple(layers)).to_json()
    for media_type, content in ((PAYLOAD, payload), (CONFIG, config)):
        storage.push(Descriptor.of(media_type, content), partial(BytesIO, content))
    storage.push(Descriptor.of(MANIFEST, manifest), partial(BytesIO, manifest), tag=tag_of(digest))


def verify_signature(reference: str, key: str, *, trust: Trust = Trust()) -> str:
    """Check that the public key in the file `key` (PEM) signed what `reference` names; returns the pinned reference.

    The signature must also name what `trust` requires it to name, if anything. Raises `NotSigned`, `SignatureError` if the
    key can't be used, `NotFound`, `Denied`, `Unreachable`.
    """
    parsed, wanted = Reference.parse(reference), replace(trust, required_key=key)
    check_keys(wanted)
    with contextlib.closing(open_storage(parsed, trust)) as storage:
        digest = storage.resolve(str(parsed.digest) if parsed.digest else parsed.tag).digest
        require(storage, parsed, digest, wanted)
    return str(parsed.at(digest))


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature, as `signatures` lists it."""

    key: str
    """Fingerprint of the key (`keys.fingerprint`); of a signature that is not verified, as it says itself, maybe empty."""
    verified: bool
    """Whether a key that is required here made it."""
    identity: str
    """The repository that it names, such as ghcr.io/team/envs; empty if it names none, as cosign 3's do."""


def signatures(storage: ReadOnlyStorage, digest: Digest, trust: Trust) -> tuple[Signature, ...]:
    """The signatures of `digest` in `storage`, in either of cosign's forms, verified with the keys that are required.

    A signature does not hold its key: one by a key that neither `trust` nor the machine's policy names is listed as it is.
    Raises `SignatureError` if a key can't be used, and what `fetch` raises.
    """
    files = dict.fromkeys([*filter(None, [trust.required_key]), *machine_policy().required_keys])
    public = [keys.public_key(file) for file in files]
    found = []
    for claim in (*_older(storage, digest), *_bundles(storage, digest)):
        if claim.signatures:
            key = next((key for key in public if claim.is_by(key)), None)
            found.append(Signature(keys.fingerprint(key) if key else claim.key, key is not None, claim.identity))
    return tuple(found)


def signed_by(storage: ReadOnlyStorage, digest: Digest, key: PublicKey) -> bool:
    """Whether `key` signed `digest`, in either of cosign's forms. Raises what `fetch` raises."""
    return any(claim.is_by(key) for claim in _older(storage, digest)) or any(
        claim.is_by(key) for claim in _bundles(storage, digest)
    )


def check_keys(trust: Trust) -> None:
    """Raise `SignatureError` for required keys that can't be used: `require` does so too, after the first request."""
    required = _required(trust)
    for file in dict.fromkeys(file for files in required for file in files):
        keys.public_key(file)


def _required(trust: Trust) -> tuple[tuple[str, ...], ...]:
    """Return groups of keys of which one each must have signed."""
    required = tuple(
        filter(None, ((trust.required_key,) if trust.required_key else (), machine_policy().required_keys))
    )
    if trust.required_identity and not required:
        raise SignatureError(
            f"--require-identity {trust.required_identity}: no key is required; add --require-signature KEY"
        )
    return required


def require(storage: ReadOnlyStorage, reference: Reference, digest: Digest, trust: Trust) -> None:
    """Raise `NotSigned` unless `digest`, in `storage`, is signed as `trust` and this machine's policy require.

    Required are `trust.required_key` and one of the policy's keys, each with a signature that names what both require it to
    name. Everything that reads an image to use it goes through here.
    """
    required = _required(trust)
    wanted = [
        _expected(identity, reference)
        for identity in dict.fromkeys((trust.required_identity, machine_policy().required_identity))
        if identity
    ]
    older: list[_Claim] | None = None
    for files in required:
        public = [keys.public_key(file) for file in files]
        older = _older(storage, digest) if older is None else older
        if _accepted(older, public, wanted):
            continue
        # Asked for only now: the older form is what mirrors can serve, and costs one request.
        claims = [*older, *_bundles(storage, digest)]
        if not _accepted(claims, public, wanted):
            raise NotSigned(f"{reference}: {_why_not(claims, files, public, wanted)}")


@dataclass(frozen=True, slots=True)
class _Claim:
    """A document that may be a signature of the digest; one of something else has no `signatures`."""

    signatures: tuple[str, ...]
    """In base64."""
    content: bytes
    """The bytes that each of them signs."""
    key: str
    """Fingerprint of the key, as the document names it; empty if it names none."""
    identity: str = ""

    def is_by(self, key: PublicKey) -> bool:
        return any(keys.holds(key, signature, self.content) for signature in self.signatures)


def _accepted(claims: Sequence[_Claim], public: Sequence[PublicKey], wanted: Sequence[str]) -> bool:
    return any(
        claim.is_by(key) and all(is_named(claim.identity, each) for each in wanted)
        for claim in claims
        for key in public
    )


def _why_not(claims: Sequence[_Claim], files: Sequence[str], public: Sequence[PublicKey], wanted: Sequence[str]) -> str:
    if not claims:
        return "not signed; sign it with lamella push --sign KEY"
    if identities := [claim.identity for claim in claims if any(claim.is_by(key) for key in public)]:
        named = ", ".join(dict.fromkeys(identity or "no repository" for identity in identities))
        return (
            f"its signature names {escaped(named, 300)}, not {' and '.join(wanted)}; sign it here, or require the "
            "identity that it was signed with"
        )
    hint = "; of an Ed25519 key, what cosign 3 signs is not read (it is Ed25519ph)"
    ed25519 = hint if any(keys.is_ed25519(key) for key in public) else ""
    them = f"the key in {files[0]}" if len(files) == 1 else f"a key in {', '.join(files)}"
    return f"not signed by {them}, but by another; ask who pushed it{ed25519}"


def _expected(identity: str, reference: Reference) -> str:
    if identity != SAME:
        return identity
    if reference.is_layout:
        raise SignatureError(
            f"{reference}: a folder is not a repository that a signature can name; "
            "use --require-identity REGISTRY/REPOSITORY"
        )
    return _name_of(reference)


def is_named(identity: str, wanted: str) -> bool:
    """Whether a signature's `identity` is the repository `wanted`, or below it if that ends in `/*`."""
    name = identity.partition("@")[0]
    folder, slash, last = name.rpartition("/")
    # cosign writes the repository alone unless --sign-container-identity adds a tag; Docker Hub has two names.
    name = _hub(f"{folder}{slash}{last.partition(':')[0]}")
    return name.startswith(_hub(wanted)[:-1]) if wanted.endswith("/*") else name == _hub(wanted)


def _hub(name: str) -> str:
    return f"docker.io/{name.removeprefix('index.docker.io/')}" if name.startswith("index.docker.io/") else name


def _name_of(reference: Reference) -> str:
    return "" if reference.is_layout else f"{reference.registry}/{reference.repository}"


def _claim(reference: Reference, digest: Digest) -> dict[str, Any]:
    critical = {
        "identity": {"docker-reference": _name_of(reference)},
        "image": {"docker-manifest-digest": str(digest)},
        "type": _TYPE,
    }
    return {"critical": critical, "optional": None}


def tag_of(digest: Digest) -> str:
    """The tag of the image that holds the signatures of `digest`."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def _layers(storage: ReadOnlyStorage, digest: Digest) -> tuple[Descriptor, ...]:
    try:
        layers = Manifest.parse(fetch_document(storage, storage.resolve(tag_of(digest)))).layers
    except NotFound:
        return ()
    return tuple(layer for layer in layers if layer.media_type == PAYLOAD)


def _older(storage: ReadOnlyStorage, digest: Digest) -> list[_Claim]:
    """Signatures as cosign 2 writes them."""
    claims = (_claim_of(storage, layer, digest) for layer in _layers(storage, digest)[-sigstore.MOST :])
    return [claim for claim in claims if claim]


def _claim_of(storage: ReadOnlyStorage, layer: Descriptor, digest: Digest) -> _Claim | None:
    """Claim of one layer; None if the storage has lost its payload."""
    try:
        payload = fetch_document(storage, layer)
    except NotFound:
        return None
    try:
        critical = parse_object(payload, "a signed document")["critical"]
        right = critical["type"] == _TYPE and critical["image"]["docker-manifest-digest"] == str(digest)
        identity = str(critical["identity"]["docker-reference"]) if right else ""
    except (InvalidContent, LookupError, TypeError):
        right, identity = False, ""
    signature = layer.annotations.get(SIGNATURE, "")
    return _Claim((signature,) if right else (), payload, layer.annotations.get(SIGNER, ""), identity)


def _bundles(storage: ReadOnlyStorage, digest: Digest) -> list[_Claim]:
    """Signatures as cosign 3 writes them."""
    return [
        _Claim(found.signatures, found.content, found.key) if found else _Claim((), b"", "")
        for found in (sigstore.parsed(bundle, digest) for bundle in sigstore.attached(storage, digest))
    ]
