"""Find the layers of a push by their keys: in the cache, under the destination's tag, under its other tags."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.pushing import destination, team_cache
from lamella.layers import logs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.layer.cache import BuiltLayer
    from lamella.builder.pushing.resolve import Resolved, Tools


def find_layers(tools: Tools, resolved: Resolved) -> dict[str, BuiltLayer]:
    """Map layer keys to layers, of those wanted and others, and remember in the cache those that were learned.

    That a layer is named here does not mean that its blob exists.
    """
    storage, target, cached = tools.storage, tools.target, resolved.cached
    platform, reuse = resolved.environment.platform, resolved.reuse
    found, is_own = _under_the_tag(tools, resolved)
    missing = {item.key for item in resolved.layers.all} - set(cached) - set(found)
    others: dict[str, BuiltLayer] = {}
    # An edit of local code misses its package and its bundle, which no colleague has pushed; an installation may not.
    edited = {each.wanted.key for each in resolved.layers.packages if each.package.origin == "local"}
    edited |= {bundle.key for bundle in resolved.layers.bundles}
    if not (target.is_layout or (is_own and missing <= edited)):
        others = team_cache.learn(storage, target, missing, platform, answers=tools.presence.answers, reuse=reuse)
    # This user's own builds first, whatever others state. Byte code may differ by a patch release of Python: of learned
    # layers, prefer those that the tag names now.
    own = {key: built for key, built in cached.items() if not built.learned}
    known = {**others, **cached, **found, **own}
    logs.record(
        "lamella.builder.pushing",
        f"known layers: {len(own)} built here, {len(found)} under the tag, {len(others)} under other tags",
        built_here=len(own),
        under_the_tag=len(found),
        under_other_tags=len(others),
    )
    for key, built in known.items():
        if cached.get(key) != built:
            tools.cache.learn(key, built)
    return known


def _under_the_tag(tools: Tools, resolved: Resolved) -> tuple[Mapping[str, BuiltLayer], bool]:
    """Layers that the tag names, and whether this process's last push set it: then nothing is read."""
    tag, reuse = resolved.tag, resolved.reuse
    if tag is None:
        return {}, False
    own = tools.earlier.layers_of(tag.digest)
    # A signed push, or one under a policy, takes only what a signature vouches for.
    if own is not None and not (resolved.options.append or reuse.fingerprint):
        return own, True
    return destination.read_layers(tools.storage, tools.target, tag, resolved.environment.platform, reuse), False
