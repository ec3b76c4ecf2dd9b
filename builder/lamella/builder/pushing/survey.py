"""Find the layers of a push by their keys: in the cache, under the destination's tag, under its other tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.pushing import destination, team_cache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.builder.layer.plan import Wanted
    from lamella.builder.pushing.belief import Belief
    from lamella.builder.pushing.team_cache import Answers
    from lamella.layers.oci.documents import Descriptor, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage


def find_layers(
    storage: Storage,
    target: Reference,
    wanted: Sequence[Wanted],
    platform: Platform,
    *,
    belief: Belief,
    answers: Answers,
    now: Descriptor | None,
    cache: LayerCache,
    cached: Mapping[str, BuiltLayer],
) -> dict[str, BuiltLayer]:
    """Map layer keys to layers, of `wanted` and others, and remember in `cache` those that were learned.

    `now` is the descriptor that the tag names; `cached` has the wanted layers that the cache knows. That a layer is named
    here does not mean that its blob exists.
    """
    found = destination.read_layers(storage, target, now, platform, belief) if now else {}
    missing = {item.key for item in wanted} - set(cached) - set(found)
    others: dict[str, BuiltLayer] = {}
    if not target.is_layout:
        others = team_cache.learn(storage, target, missing, platform, answers=answers, belief=belief)
    # This user's own builds first, whatever others state. Byte code may differ by a patch release of Python: of learned
    # layers, prefer those that the tag names now.
    own = {key: built for key, built in cached.items() if not built.learned}
    known = {**others, **cached, **found, **own}
    for key, built in known.items():
        if cached.get(key) != built:
            cache.learn(key, built)
    return known
