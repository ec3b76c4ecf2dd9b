"""Decide what a push does: which layers to build, to upload, and to reuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.layer.plan import PushPlan, plan
from lamella.builder.pushing import destination
from lamella.builder.pushing.survey import find_layers
from lamella.builder.pushing.upload import blob
from lamella.layers import logs
from lamella.layers.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.image.documents import Documents, Pair
    from lamella.builder.layer.cache import BuiltLayer
    from lamella.builder.pushing.resolve import Resolved, Tools


@dataclass(frozen=True, slots=True)
class Decided:
    """Decisions of a push, before anything is built or uploaded."""

    plan: PushPlan
    known: Mapping[str, BuiltLayer]
    """Layers by key."""
    there: frozenset[str]
    """Digests that the destination has already."""


def decide(tools: Tools, resolved: Resolved) -> Decided:
    """Find the layers that others pushed, ask the destination which content it has, and plan the rest."""
    layers, known, presence = resolved.layers.all, resolved.cached, tools.presence
    named = _named(tools, resolved, known)
    if not named:
        known = find_layers(tools, resolved)
        named = _named(tools, resolved, known)
    asked = [blob(known[item.key]) for item in layers if item.key in known]
    asked += [layer.descriptor for layer in resolved.base.layers] if resolved.base else []
    if named:
        asked += [document.descriptor for document in named.configs]
        if tools.target.is_layout:
            asked += [document.descriptor for document in (*named.manifests, named.index)]
    there = presence.there(asked)
    unchanged = named is not None and all(str(each.digest) in there for each in asked)
    if named and not tools.target.is_layout:
        # The registry has just sent it. Its manifests it is sent: it checks what they name.
        there |= {str(named.index.descriptor.digest)}

    def here(built: BuiltLayer) -> bool:
        return tools.cache.blob_path(built) is not None

    planned = plan(str(tools.target), layers, known, here, there)
    _log(planned)
    return Decided(replace(planned, unchanged=unchanged), known, there)


_REASONS = {
    "build": "built before, but its blob is gone",
    "upload": "built before, and not there yet",
    "reuse": "there already",
}


def _log(planned: PushPlan) -> None:
    """Record the action of each layer with its reason."""
    for layer in planned.layers:
        reason = _REASONS[layer.action] if layer.built else "no layer with its key here or there"
        digest = str(layer.built.digest) if layer.built else None
        logs.record(
            "lamella.builder.pushing",
            f"{layer.action} {_shown(layer.wanted.packages)}: {reason}",
            action=layer.action,
            packages=list(layer.wanted.packages),
            reason=reason,
            key=layer.wanted.key,
            digest=digest,
        )


def _shown(packages: Sequence[str]) -> str:
    return packages[0] if len(packages) == 1 else f"a bundle of {counted(len(packages), 'package')}"


def _named(tools: Tools, resolved: Resolved, known: Mapping[str, BuiltLayer]) -> Documents | None:
    """Documents of the push if the tag names exactly these; None if it names others, or if a layer is not known."""
    tag, options = resolved.tag, resolved.options
    if not tag or any(item.key not in known for item in resolved.layers.all):
        return None
    others: tuple[Pair, ...] = ()
    if options.append:
        others = destination.others(tools.storage, tag, resolved.environment.platform, resolved.reuse, options.keep)
    made = resolved.documents(known, others)
    return made if tag.digest == made.index.descriptor.digest else None
