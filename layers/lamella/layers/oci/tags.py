"""Which tags people made, and which were made of digests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.documents import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable

_DERIVED = re.compile(r"sha(256|512)-[0-9a-f]{64}")
_SHOWN = 10


def is_derived(tag: str) -> bool:
    """Return whether `tag` was made of a digest, to find its attachments."""
    return bool(_DERIVED.match(tag))


def subject_of(tag: str) -> Digest | None:
    """The digest that `tag` was made of; None for a tag that people made."""
    if not is_derived(tag):
        return None
    algorithm, _, rest = tag.partition("-")
    try:
        return Digest(algorithm, rest.partition(".")[0])
    except InvalidContent:
        return None


def listed(tags: Iterable[str]) -> str:
    """What tags there are, for the message that one is not among them: those that people made, and the first ones."""
    made = sorted(tag for tag in tags if not is_derived(tag))
    more = f" and {len(made) - _SHOWN} more" if len(made) > _SHOWN else ""
    return f"it has {', '.join(made[:_SHOWN])}{more}" if made else "it has no tags"
