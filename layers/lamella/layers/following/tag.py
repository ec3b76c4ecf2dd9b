"""Poll the digest of a tag: by HEAD requests to a registry, or from a layout's index."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Protocol

from lamella.layers.errors import InvalidReference, LayersError
from lamella.layers.oci.reference import Reference
from lamella.layers.registry.retry import Patience
from lamella.layers.registry.url import is_loopback
from lamella.layers.storages import open_registry, open_storage

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Digest
    from lamella.layers.settings.trust import Trust

NEAR = 0.2
"""Seconds between two requests to a registry on this machine, or looks at a folder, by default."""
FAR = 1.0
"""Seconds between two requests to any other registry, by default."""
_SLOWEST = 10.0
"""Most seconds between two requests while they fail."""
_PATIENCE = Patience(tries=1, window=10.0)


class _Names(Protocol):
    def digest_of(self, tag: str) -> Digest:
        """See `Registry.digest_of`."""

    def close(self) -> None:
        """Close all connections."""


class TaggedDigest:
    """Polls one tag. `interval`: seconds between two requests; 0 for the default."""

    def __init__(self, reference: str, trust: Trust, interval: float = 0.0) -> None:
        self.reference = Reference.parse(reference)
        if self.reference.digest or not self.reference.tag:
            raise InvalidReference(f"{reference}: a digest never moves; name a tag to follow")
        self._trust = trust
        near = self.reference.is_layout or is_loopback(self.reference.registry)
        self._interval = interval or (NEAR if near else FAR)
        self._names: _Names | None = None
        self._failures = 0

    def ask(self) -> Digest:
        """Return the digest. Raises `NotFound`, `Unreachable`, `Denied`, `PolicyError`, `InvalidContent`, `StoreError`."""
        try:
            self._names = self._names or _opened(self.reference, self._trust)
            found = self._names.digest_of(self.reference.tag)
        except LayersError:
            self._failures += 1
            self.close()
            raise
        self._failures = 0
        return found

    def at(self, digest: Digest) -> str:
        """The reference with its tag and that digest: what it names never changes."""
        return str(self.reference.at(digest))

    @property
    def pause(self) -> float:
        """Seconds until the next request, varied by a tenth, so that nodes that start together do not ask together."""
        slower = min(self._interval * float(1 << min(self._failures, 16)), max(_SLOWEST, self._interval))
        return slower * random.uniform(0.9, 1.1)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        if self._names:
            self._names.close()
        self._names = None


def _opened(reference: Reference, trust: Trust) -> _Names:
    if reference.is_layout:
        return _LayoutNames(reference, trust)
    return open_registry(reference, trust, patience=_PATIENCE)


class _LayoutNames:
    """A layout folder's tags. The index is read if its file changed."""

    def __init__(self, reference: Reference, trust: Trust) -> None:
        self._storage = open_storage(reference, trust)
        self._path = os.path.join(reference.folder, "index.json")
        self._seen: tuple[int, int, int] | None = None
        self._digest: Digest | None = None

    def digest_of(self, tag: str) -> Digest:
        """See `Registry.digest_of`."""
        try:
            status = os.stat(self._path)
            seen = status.st_ino, status.st_mtime_ns, status.st_size
        except OSError:
            seen = None
        if self._digest is None or seen is None or seen != self._seen:
            self._digest = self._storage.resolve(tag).digest
            self._seen = seen
        return self._digest

    def close(self) -> None:
        """Close the folder."""
        self._storage.close()
