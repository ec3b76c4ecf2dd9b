"""What the layers of a push are known to be, and which of them the destination has."""

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
    from lamella.layers.oci.documents import Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage
    from lamella.layers.trust import Trust

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Survey:
    """What layers are known to be, and which of them the destination has."""

    known: dict[str, BuiltLayer]
    there: frozenset[str]
    believed: bool
    """Whether some of `there` was said within a day and not asked for now."""
    place: str
    answers: team_cache.Answers

    def doubt(self, cache: LayerCache) -> None:
        """Forgets everything that the destination ever said."""
        team_cache.remember(cache, self.place, team_cache.Answers())

    def remember(self, cache: LayerCache, layers: Iterable[BuiltLayer], pushed: str) -> None:
        """Everything was there just now; nobody learns anything of one's own tag, `pushed` (tag@digest)."""
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
    trust: Trust,
    now: Descriptor | None,
    cache: LayerCache,
    cached: Mapping[str, BuiltLayer],
) -> Survey:
    """Asks about the layers `wanted`; `now` is what the tag names, `cached` what the cache knows of them.

    What is learned is kept in `cache`.
    """
    place = "" if target.is_layout else f"{target.registry}/{target.repository}"
    answers = team_cache.recall(cache, place) if place else team_cache.Answers()
    found = destination.read_destination(storage, target, now, platform, trust) if now else destination.Destination()
    missing = {item.key for item in wanted} - set(cached) - set(found.known)
    others = (
        team_cache.learn(storage, target, missing, platform, answers=answers, trust=trust)
        if place
        else destination.Destination()
    )
    # Two builders' byte code may differ by a patch release of Python: what is there goes before what is here.
    known = {**others.known, **cached, **found.known}
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
