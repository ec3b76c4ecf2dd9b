"""The tags of a repository or layout."""

from __future__ import annotations

import contextlib

from lamella.layers.reference import Reference
from lamella.layers.storage import open_storage


def list_tags(reference: str, *, insecure: bool = False) -> list[str]:
    """Every tag where `reference` is, sorted; its own tag does not matter.

    Tags that other documents' names are made into (referrers and signatures of a digest) are left out.
    """
    with contextlib.closing(open_storage(Reference.parse(reference), insecure=insecure)) as storage:
        return [tag for tag in storage.tags() if not is_derived(tag)]


def is_derived(tag: str) -> bool:
    """Whether `tag` was made of a digest, to find what is attached to it."""
    return tag.startswith(("sha256-", "sha512-"))
