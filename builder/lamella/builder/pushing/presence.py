"""Which content a push's destination has: asked or sent within the last day, never inferred.

That a tag or manifest exists proves nothing about the blobs and manifests it names: registries lose
blobs to garbage collection and retention rules. See docs/adr/a-tag-heals.md.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lamella.builder.pushing import team_cache

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lamella.builder.layer.cache import LayerCache
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage

_THREADS = 16


class Presence:
    """Answers of one destination, kept in `cache` for later pushes to the same `place`.

    `place` is the repository; empty for a layout, which is asked each time, since that costs no request.
    `check`: ask for everything.
    """

    def __init__(self, storage: Storage, cache: LayerCache, place: str, *, check: bool = False) -> None:
        self._storage = storage
        self._cache = cache
        self._place = place
        self._answers = team_cache.recall(cache, place) if place else team_cache.Answers()
        self._check = check
        self._now: set[str] = set()
        self.recalled = False
        """Whether an answer of an earlier push was used."""

    @property
    def answers(self) -> team_cache.Answers:
        """Answers within the last day."""
        return self._answers

    def there(self, wanted: Iterable[Descriptor]) -> frozenset[str]:
        """Digests of `wanted` that the destination has. One request for each without an answer, several at once."""
        once = {str(each.digest): each for each in wanted}
        asked = [each for digest, each in once.items() if not self.has(digest)]
        if asked:
            with ThreadPoolExecutor(min(_THREADS, len(asked)), "lamella-ask") as pool:
                for each, exists in zip(asked, pool.map(self._storage.exists, asked), strict=True):
                    if exists:
                        self.confirm([str(each.digest)])
                    else:
                        self._answers.digests.pop(str(each.digest), None)
        there = frozenset(digest for digest in once if digest in self._answers.digests)
        self.recalled |= not there <= self._now
        return there

    def has(self, digest: str) -> bool:
        """Whether no request is needed for `digest`."""
        return digest in self._now or (not self._check and digest in self._answers.digests)

    def confirm(self, digests: Iterable[str]) -> None:
        """Note that the destination has `digests` now, since it was asked for them or took them."""
        self._now.update(digests)
        self._answers.digests.update(dict.fromkeys(digests, time.time()))

    def doubt(self) -> None:
        """Forget every answer, here and for later pushes, and ask for everything from now on."""
        self._answers.digests.clear()
        self._now.clear()
        self._check = True
        self.recalled = False
        self.remember()

    def remember(self) -> None:
        """Keep the answers for later pushes."""
        if self._place:
            team_cache.remember(self._cache, self._place, self._answers)
