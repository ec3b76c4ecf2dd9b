"""Remove a tag from a registry. Source: distribution-spec v1.1, Content Management, Deleting tags.

docker-registry before 3.0, and others, delete a manifest by its digest only, with every tag that names it. There the tag
is first set to a manifest that nothing else names, which is then deleted: regclient does the same.
"""

from __future__ import annotations

import io
import os
from functools import partial
from typing import TYPE_CHECKING

from lamella.layers.errors import Unsupported
from lamella.layers.oci.documents import EMPTY, MANIFEST, Descriptor, Manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from lamella.layers.oci.storage import Pusher

REFUSED = frozenset({400, 405, 501})
"""Statuses of a registry that does not delete this: seen are 400 (DIGEST_INVALID, for a tag) and 405 (UNSUPPORTED)."""
_TYPE = "application/vnd.lamella.untagged"
_ELSEWHERE = {
    "docker.io": "Docker Hub deletes tags on its website and through its own API",
    "ghcr.io": "GitHub deletes versions of a package on its website and through its own API",
}


def remove_tag(repository: Pusher, registry: str, tag: str, delete: Callable[[str], str]) -> None:
    """Remove `tag` of a repository of `registry`. `delete` deletes by tag or digest, and returns why the registry refuses, or an empty string.

    Raises `Unsupported` if it deletes neither; the tag is as it was then.
    """
    if not (refusal := delete(tag)):
        return
    content = b"{}"
    empty = Descriptor.of(EMPTY, content)
    repository.push(empty, partial(io.BytesIO, content))
    document = Manifest(empty, (empty,), {"dev.lamella.untagged": os.urandom(16).hex()}, artifact_type=_TYPE).to_json()
    stand_in = Descriptor.of(MANIFEST, document)
    # Without the tag first: if it can't be deleted, the tag must not name it.
    for name in ("", tag):
        repository.push(stand_in, partial(io.BytesIO, document), tag=name)
        if again := delete(str(stand_in.digest)):
            raise refused(registry, again if name else refusal)


def refused(registry: str, refusal: str) -> Unsupported:
    """Return the error for a registry that deletes nothing."""
    advice = _ELSEWHERE.get(
        registry, "use the registry's own tools, or enable it (docker-registry: REGISTRY_STORAGE_DELETE_ENABLED=true)"
    )
    return Unsupported(f"{registry}: does not delete tags or manifests through its registry API ({refusal}); {advice}")
