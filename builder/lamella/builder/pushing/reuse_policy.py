"""Layers that a push may reuse: its own builds first, then layers that its destination names.

An unsigned push reuses the layers of every writer of its destination. A signed push reuses only those
of an index that the pusher's own key signed: a signature covers nothing that its owner neither built
nor signed before. See
docs/adr/what-a-signed-push-reuses.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.layer.cache import Learned
from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.settings.policy import machine_policy
from lamella.layers.settings.trust import Trust

if TYPE_CHECKING:
    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import ReadOnlyStorage
    from lamella.layers.signing.keys import PrivateKey, PublicKey


@dataclass(frozen=True, slots=True)
class ReusePolicy:
    """Conditions under which one push reuses a layer instead of building it."""

    place: str
    """`registry/repository`, or the absolute folder of a layout."""
    trust: Trust = Trust()
    """Applies to every index that is read."""
    key: PublicKey | None = None
    """Key that must have signed an index before its statements are used; None for no such key."""
    fingerprint: str = ""
    """Of that key, else of all that `trust` and this machine's policy require; empty if no signature is checked."""

    @property
    def learned(self) -> Learned:
        """Source of layers that are learned under this policy."""
        return Learned(self.place, self.fingerprint)

    def find(self, cache: LayerCache, key: str) -> BuiltLayer | None:
        """Return the layer that `key` was built as here, else one that was learned under a policy as strict as this."""
        built = cache.find(key, self.place)
        if built and built.learned and self.fingerprint not in ("", built.learned.key):
            return None
        return built

    def accepts(self, storage: ReadOnlyStorage, digest: Digest) -> bool:
        """Whether the index `digest` has the signature of `key`; `read_index` checks `trust`."""
        if self.key is None:
            return True
        from lamella.layers.signing.cosign import signed_by

        try:
            return signed_by(storage, digest, self.key)
        except (InvalidContent, NotFound):
            return False  # whatever is at the signature's tag, it is not this key's signature


def reuse_policy(target: Reference, signing_key: PrivateKey | None, trust: Trust) -> ReusePolicy:
    """Rules of a push to `target`. Raises `SignatureError` if a required key can't be used."""
    place = os.path.abspath(target.folder) if target.is_layout else f"{target.registry}/{target.repository}"
    policy = machine_policy()
    required = [*filter(None, [trust.required_key]), *policy.required_keys]
    if not signing_key and not required:
        return ReusePolicy(place, trust)
    # Imported only then: a command starts faster without it.
    from lamella.layers.signing import keys

    if signing_key:
        public = signing_key.public_key()
        return ReusePolicy(place, trust, public, keys.fingerprint(public))
    # One of several keys signed, for one of several names: layers count as learned under these very requirements.
    names = filter(None, [trust.required_identity, policy.required_identity])
    requirements = {*names, *(keys.fingerprint(keys.public_key(file)) for file in required)}
    return ReusePolicy(place, trust, None, " ".join(sorted(requirements)))
