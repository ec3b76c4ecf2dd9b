"""The end of a push: documents, what is attached to them, signatures, and last of all the tag.

The index goes first without its tag, so that whoever asks for the tag, before or after, finds all that belongs to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.errors import BuilderError
from lamella.builder.image.sbom import MEDIA_TYPE as SBOM
from lamella.builder.pushing import destination
from lamella.layers.errors import LayersError
from lamella.layers.oci import referrers
from lamella.layers.published.findings import MEDIA_TYPE as FINDINGS
from lamella.layers.published.findings import PLATFORM

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lamella.builder.image.documents import Documents, Pair
    from lamella.builder.pushing.upload import Uploads
    from lamella.layers.oci.documents import Descriptor, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.referrers import Artifact
    from lamella.layers.oci.storage import Storage
    from lamella.layers.signing.keys import PrivateKey

_TRIES = 8
"""How often others may push to one tag while a platform is added to it."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """What belongs to an index and is not in it."""

    platform: Platform
    """Whose it is."""
    findings: Artifact | None = None
    """Not attached where the registry takes none: what was pushed works without."""
    sbom: Artifact | None = None
    key: PrivateKey | None = None
    """Signs the index."""


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """What the tag names now."""

    index: Descriptor
    unattached: str = ""
    """Why the findings are not attached; empty where they are, or there are none."""


def publish(
    storage: Storage,
    target: Reference,
    document: Callable[[Sequence[Pair]], Documents],
    attachments: Attachments,
    *,
    send: Callable[[Documents], None],
    uploads: Uploads,
    now: Descriptor | None,
    append: bool,
) -> PublishedIndex:
    """Makes the tag of `target` name what `document` makes of other platforms' images; `now` is what it names.

    `send` sends all but the tag. With `append`, what others push to the tag meanwhile stays in it: the index is made
    anew until the tag is found with all of it. Between the last look at the tag and its change nothing can be held, and
    of two that fall into one such moment one is lost, unless it looks after the other: registries have no way to ask
    for a change of that alone which was seen.
    """
    for _ in range(_TRIES):
        others = destination.others(storage, now, attachments.platform) if append and now else ()
        made = document(others)
        index = made.index.descriptor
        if now and now.digest == index.digest:
            return attach(storage, target, index, attachments)
        send(made)
        published = attach(storage, target, index, attachments, now if others else None)
        if append and _digest(latest := destination.current(storage, target)) != _digest(now):
            now = latest
            continue
        uploads.document(made.index, tag=target.tag)
        if not append:
            return published
        latest = destination.current(storage, target)
        if latest and (latest.digest == index.digest or attachments.platform in destination.platforms(storage, latest)):
            return published
        now = latest
    raise BuilderError(f"others push to {target} all the time, {attachments.platform} is not in it: push again")


def attach(
    storage: Storage,
    target: Reference,
    index: Descriptor,
    attachments: Attachments,
    before: Descriptor | None = None,
) -> PublishedIndex:
    """Signs `index` and attaches what belongs to it, with what is attached to the one `before` it for other platforms."""
    if attachments.key:
        from lamella.layers.signing.cosign import sign_digest

        sign_digest(storage, target, index.digest, attachments.key)
    said = {PLATFORM: str(attachments.platform)}
    artifacts = [replace(each, annotations=said) for each in (attachments.sbom, attachments.findings) if each]
    try:
        if before and before.digest != index.digest:
            artifacts += _of_others(storage, before, attachments.platform)
        # Asked once for all: a push that changes nothing is a few requests.
        there = referrers.referrers(storage, index) if artifacts else ()
        for artifact in artifacts:
            referrers.attach(storage, index, artifact, there)
    except LayersError as error:
        # Findings are nobody's wish: a bill of materials is.
        if any(artifact.artifact_type != FINDINGS for artifact in artifacts):
            raise
        return PublishedIndex(index, str(error))
    return PublishedIndex(index)


def _of_others(storage: Storage, before: Descriptor, platform: Platform) -> Iterator[Artifact]:
    """The findings and bills of materials of other platforms that are attached to the index `before`."""
    for referrer in referrers.referrers(storage, before):
        if referrer.artifact_type in {FINDINGS, SBOM}:
            said = referrers.annotations_of(storage, referrer)
            if said.get(PLATFORM, str(platform)) != str(platform):
                yield referrers.Artifact(referrer.artifact_type, referrers.content_of(storage, referrer), said)


def _digest(descriptor: Descriptor | None) -> str:
    return str(descriptor.digest) if descriptor else ""
