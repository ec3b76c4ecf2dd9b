"""Take a tag away from a registry or layout folder, and on request the index that it names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lamella.layers.errors import InvalidReference, LayersError, NotFound
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.tags import is_derived
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage

if TYPE_CHECKING:
    from lamella.layers.oci.documents import Digest
    from lamella.layers.oci.storage import ReadOnlyStorage

MOST = 1000
"""Tags that are resolved, a request each, to find the others of a manifest."""
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Untagged:
    """The result of `untag`; with `dry_run` nothing was removed."""

    reference: str
    """Repository or folder and tag, with the digest that the tag named."""
    deleted: bool
    """Whether the manifest went as well."""
    others: tuple[str, ...] = ()
    """The other tags that named the manifest; only looked up to delete it."""

    def __repr__(self) -> str:
        return f"<Untagged {self.reference}{', with its manifest' if self.deleted else ''}>"


def untag(
    reference: str,
    *,
    manifest: bool = False,
    other_tags: bool = False,
    dry_run: bool = False,
    trust: Trust = Trust(),
) -> Untagged:
    """Remove the tag of `reference`; if it has a digest as well, only if the tag names that one.

    What the tag named stays, also for those who have its digest, until the registry collects it, or `gc` of a layout.
    `manifest`: delete the index as well. Other tags that name it would go with it: that is an error unless `other_tags`.
    Raises `NotFound` without such a tag, `InvalidReference`, `Unsupported` if the registry deletes nothing, `Denied`,
    `Unreachable`.
    """
    parsed = Reference.parse(reference)
    if not parsed.tag or (parsed.tag == "latest" and ":latest" not in reference):
        raise InvalidReference(f"{reference}: names no tag; write {parsed.at_tag('TAG')}")
    with closing(open_storage(parsed, trust, mirrors=False)) as storage:
        digest = storage.resolve(parsed.tag).digest
        if parsed.digest and parsed.digest != digest:
            raise LayersError(f"{reference}: nothing removed, since the tag names {digest} by now")
        others = _others(storage, parsed, digest) if manifest else ()
        if others and not other_tags:
            raise LayersError(
                f"{parsed.at_tag(parsed.tag)}: nothing deleted, since {', '.join(others[:3])}"
                f"{f' and {len(others) - 3} more tags' if len(others) > 3 else ''} would go as well; leave out --manifest "
                "to remove this tag alone, or add --other-tags"
            )
        if not dry_run:
            if manifest:
                storage.delete(digest)
            else:
                storage.remove_tag(parsed.tag)
            _check(storage, parsed, digest)
    return Untagged(str(parsed.at(digest)), manifest, others)


def _others(storage: ReadOnlyStorage, parsed: Reference, digest: Digest) -> tuple[str, ...]:
    """The other tags that name `digest`."""
    tags = [tag for tag in storage.tags() if tag != parsed.tag and not is_derived(tag)]
    if len(tags) > MOST:
        raise LayersError(
            f"{parsed.at_tag(parsed.tag)}: has {len(tags):,} other tags; at most {MOST:,} are compared; leave out --manifest"
        )

    def names_it(tag: str) -> bool:
        try:
            return storage.resolve(tag).digest == digest
        except NotFound:
            return False

    with ThreadPoolExecutor(_THREADS, "lamella-tags") as pool:
        return tuple(tag for tag, same in zip(tags, pool.map(names_it, tags), strict=True) if same)


def _check(storage: ReadOnlyStorage, parsed: Reference, digest: Digest) -> None:
    """Read back: a registry's answer is not believed."""
    try:
        left = storage.resolve(parsed.tag).digest
    except NotFound:
        return
    if left == digest:
        raise LayersError(
            f"{parsed.at_tag(parsed.tag)}: the registry accepted the removal and still has the tag; retry later"
        )
