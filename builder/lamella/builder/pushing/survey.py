"""Survey a push's destination: find known layers by key, and which of them exist there."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.builder.pushing import destination, team_cache
from lamella.layers.oci.documents import Descriptor

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.builder.layer.plan import Wanted
    from lamella.builder.pushing.belief import Belief
    from lamella.layers.oci.documents import Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Survey:
    """Known layers, and which of them the destination has."""

    known: dict[str, BuiltLayer]
    """Layers by key, from the cache and from the repository."""
    there: frozenset[str]
    """Digests that the destination has."""
    believed: bool
    """Whether some of `there` comes from an answer within the last day, not asked again."""
    place: str
    """The repository; empty for a layout, whose answers are not remembered."""
    answers: team_cache.Answers

    def doubt(self, cache: LayerCache) -> None:
        """Forget every remembered answer of the destination."""
        team_cache.remember(cache, self.place, team_cache.Answers())

    def remember(self, cache: LayerCache, layers: Iterable[BuiltLayer], pushed: str) -> None:
        """Remember that all `layers` exist now, and that `pushed` (tag@digest) needs no reading."""
        if self.place:
            self.answers.tags[pushed] = time.time()
            self.answers.digests.update(dict.fromkeys((str(built.digest) for built in layers), time.time()))
            team_cache.remember(cache, self.place, self.answers)


def survey_destination(
    storage: Storage,
    target: Reference,
    wanted: Sequence[Wanted],
    platform: Platform,
    *,
    belief: Belief,
    now: Descriptor | None,
    cache: LayerCache,
    cached: Mapping[str, BuiltLayer],
) -> Survey:
    """Look for the layers `wanted` at the destination, and remember in `cache` which were found.

    `now` is the descriptor that the tag names; `cached` has the wanted layers that the cache knows.
    """
    place = "" if target.is_layout else f"{target.registry}/{target.repository}"
    answers = team_cache.recall(cache, place) if place else team_cache.Answers()
    found = destination.read_destination(storage, target, now, platform, belief) if now else destination.Destination()
    missing = {item.key for item in wanted} - set(cached) - set(found.known)
    others = (
        team_cache.learn(storage, target, missing, platform, answers=answers, belief=belief)
        if place
        else destination.Destination()
    )
    # This user's own builds first, whatever others state. Byte code may differ by a patch release of Python: of learned
    # layers, prefer those that the tag names now.
    own = {key: built for key, built in cached.items() if not built.learned}
    known = {**others.known, **cached, **found.known, **own}
    for key, built in known.items():
        if cached.get(key) != built:
            cache.learn(key, built)
    sure = found.digests | others.digests
    wanted_digests = {str(known[item.key].digest) for item in wanted if item.key in known}
    believed = (wanted_digests & set(answers.digests)) - sure
    asked = {known[item.key] for item in wanted if item.key in known}
    asked = {built for built in asked if str(built.digest) not in sure | believed}
    there = sure | believed | _existing(storage, asked)
    answers.digests.update(dict.fromkeys(sure, time.time()))
    return Survey(known, frozenset(there), bool(believed), place, answers)


def _existing(storage: Storage, asked: Collection[BuiltLayer]) -> set[str]:
    if not asked:
        return set()

    def exists(built: BuiltLayer) -> bool:
        return storage.exists(Descriptor(built.media_type, built.digest, built.size))

    with ThreadPoolExecutor(_THREADS, "lamella-ask") as pool:
        return {str(built.digest) for built, found in zip(asked, pool.map(exists, asked), strict=True) if found}
