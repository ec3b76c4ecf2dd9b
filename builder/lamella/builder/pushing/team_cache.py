"""The team's cache: what others pushed to a repository, found by layer key and neither built nor uploaded again.

The images that are there are the cache: every layer of a package manifest carries its key. See
docs/adr/a-teams-cache-is-the-images-that-are-there.md for what else was measured.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.pushing import destination
from lamella.layers.errors import InvalidContent, NotFound
from lamella.layers.oci.tags import is_derived

if TYPE_CHECKING:
    from collections.abc import Collection

    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.builder.pushing.destination import Destination
    from lamella.layers.oci.documents import Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage
    from lamella.layers.trust import Trust

REMEMBERED = 24 * 3600
"""Seconds for which an answer of a registry is believed without asking again."""
MOST_TAGS = 16
"""Tags of a repository that are looked at: the last ones by name, since dates and versions grow."""

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """What one repository said, and when (seconds since 1970)."""

    digests: dict[str, float] = field(default_factory=dict)
    """Blobs that it has."""
    tags: dict[str, float] = field(default_factory=dict)
    """Tags whose layers were learned, each with the digest that it had: tag@digest."""


def recall(cache: LayerCache, place: str) -> Answers:
    """The answers of `place` that are still believed."""
    oldest = time.time() - REMEMBERED
    try:
        value = json.loads(cache.note(_note(place)) or b"{}")
        return Answers(*({name: at for name, at in value[part].items() if at > oldest} for part in ("digests", "tags")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answers()


def remember(cache: LayerCache, place: str, answers: Answers) -> None:
    """Keeps `answers` for other pushes; two at once keep those of one, which costs the other requests and nothing else."""
    cache.keep_note(_note(place), json.dumps({"digests": answers.digests, "tags": answers.tags}).encode())


def learn(
    storage: Storage,
    reference: Reference,
    missing: Collection[str],
    platform: Platform,
    *,
    answers: Answers,
    trust: Trust,
) -> Destination:
    """What the other tags of the repository have of the keys `missing`, and everything else that they have.

    The last tags first, until nothing is missing. Those that were looked at are added to `answers`, and within a day not
    looked at again unless they moved: whether they did costs one request each, where the other way is to build.
    """
    if not missing:
        return destination.Destination()
    try:
        tags = storage.tags()
    except NotFound:
        tags = []  # a registry has no repository before something is pushed to it
    theirs = [tag for tag in tags if tag != reference.tag and not is_derived(tag)]
    seen = {name.rpartition("@")[0] for name in answers.tags}
    # Those that were never looked at come with as many others as there may be: every push gets to older ones.
    names = sorted({*theirs[-MOST_TAGS:], *[tag for tag in theirs if tag not in seen][-MOST_TAGS:]})

    def look(tag: str) -> tuple[str, Destination]:
        name = tag
        try:
            index = storage.resolve(tag)
            name = f"{tag}@{index.digest}"
            if name not in answers.tags:
                return name, destination.read_destination(storage, reference, index, platform, trust)
        except (NotFound, InvalidContent):
            pass  # gone meanwhile, or somebody's other image
        return name, destination.Destination()

    known: dict[str, BuiltLayer] = {}
    digests: set[str] = set()
    with ThreadPoolExecutor(_THREADS, "lamella-learn") as pool:
        while names and not known.keys() >= set(missing):
            some = names[-_THREADS:]
            del names[-_THREADS:]
            for name, found in list(pool.map(look, some)):
                known |= found.known
                digests |= found.digests
                answers.tags.setdefault(name, time.time())
    return destination.Destination(None, frozenset(digests), known)


def _note(place: str) -> str:
    return f"answers {place}"
