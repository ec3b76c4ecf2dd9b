"""The team's cache: layers that others pushed to a repository, found by key and reused.

The repository's images are the cache: every layer of a package manifest carries its key. See
docs/adr/a-teams-cache-is-the-images-that-are-there.md for the alternatives.
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
    from lamella.builder.pushing.reuse_policy import ReusePolicy
    from lamella.layers.oci.documents import Digest, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.storage import Storage

REMEMBERED = 24 * 3600
"""Seconds for which a registry's answer is used without asking again."""
MOST_TAGS = 16
"""Number of a repository's tags to read: the last by name, since dates and versions grow."""

_THREADS = 8


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers of one repository, each with its time (seconds since 1970)."""

    digests: dict[str, float] = field(default_factory=dict)
    """Blobs that it had when it was asked for them, or took them."""
    tags: dict[str, float] = field(default_factory=dict)
    """Tags read, each with the digest that it had: see `tag_name`."""


def recall(cache: LayerCache, place: str) -> Answers:
    """Answers of `place` that are recent enough to use."""
    oldest = time.time() - REMEMBERED
    try:
        value = json.loads(cache.note(_note(place)) or b"{}")
        return Answers(*({name: at for name, at in value[part].items() if at > oldest} for part in ("digests", "tags")))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Answers()


def remember(cache: LayerCache, place: str, answers: Answers) -> None:
    """Keep `answers` for later pushes. Of two pushes at once one wins; the loss costs only requests."""
    cache.keep_note(_note(place), json.dumps({"digests": answers.digests, "tags": answers.tags}).encode())


def learn(
    storage: Storage,
    reference: Reference,
    missing: Collection[str],
    platform: Platform,
    *,
    answers: Answers,
    reuse: ReusePolicy,
) -> dict[str, BuiltLayer]:
    """Read the repository's other tags, the last first, until all keys in `missing` are found.

    Return all their layers by key. Tags read are added to `answers`, and are not read again within a day
    unless they moved; that check costs one request a tag, less than building a layer.
    """
    if not missing:
        return {}
    try:
        tags = storage.tags()
    except NotFound:
        tags = []  # a registry creates the repository on the first push
    theirs = [tag for tag in tags if tag != reference.tag and not is_derived(tag)]
    read = {name.rpartition("@")[0] for name in answers.tags}
    # Up to as many tags again that were never read: each push reaches older ones.
    names = sorted({*theirs[-MOST_TAGS:], *[tag for tag in theirs if tag not in read][-MOST_TAGS:]})

    def read_tag(tag: str) -> tuple[str, dict[str, BuiltLayer]]:
        name = tag
        try:
            index = storage.resolve(tag)
            name = tag_name(tag, index.digest, reuse)
            if name not in answers.tags:
                return name, destination.read_layers(storage, reference, index, platform, reuse)
        except (NotFound, InvalidContent):
            pass  # removed meanwhile, or not an image of Lamella's
        return name, {}

    known: dict[str, BuiltLayer] = {}
    with ThreadPoolExecutor(_THREADS, "lamella-learn") as pool:
        while names and not known.keys() >= set(missing):
            some = names[-_THREADS:]
            del names[-_THREADS:]
            for name, found in list(pool.map(read_tag, some)):
                known |= found
                answers.tags.setdefault(name, time.time())
    return known


def tag_name(tag: str, digest: Digest, reuse: ReusePolicy) -> str:
    """Name of a tag in `Answers`: one that was not read under `reuse` may be read under another."""
    return f"{tag}@{digest}{reuse.fingerprint and f'+{reuse.fingerprint}'}"


def _note(place: str) -> str:
    return f"answers {place}"
