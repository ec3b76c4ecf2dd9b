"""Publish a push: upload documents, attach artifacts and signatures, and set the tag last.

The index is uploaded without its tag first, so that a reader who resolves the tag at any moment
finds everything that belongs to it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.errors import BuilderError
from lamella.builder.pushing import destination
from lamella.layers.attaching.listing import FINDINGS, LOCK, SBOM
from lamella.layers.errors import Denied, InvalidContent, LayersError, NotFound
from lamella.layers.oci import referrers
from lamella.layers.oci.annotations import PLATFORM
from lamella.layers.oci.documents import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from lamella.builder.image.documents import Documents, Pair
    from lamella.builder.pushing.presence import Presence
    from lamella.builder.pushing.reuse_policy import ReusePolicy
    from lamella.builder.pushing.upload import Uploads
    from lamella.layers.oci.documents import Descriptor, Platform
    from lamella.layers.oci.reference import Reference
    from lamella.layers.oci.referrers import Artifact
    from lamella.layers.oci.storage import Storage
    from lamella.layers.signing.keys import PrivateKey

_TRIES = 8
"""Attempts to add a platform to a tag while other pushes change it."""


@dataclass(frozen=True, slots=True)
class Attachments:
    """Artifacts and a signature that belong to an index and are not in it."""

    platform: Platform
    """Platform that the artifacts describe."""
    findings: Artifact | None = None
    """Skipped if the registry refuses them: the environment works without."""
    sbom: Artifact | None = None
    locks: tuple[Artifact, ...] = ()
    """Lock files of the packages."""
    key: PrivateKey | None = None
    """Key that signs the index."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """Artifacts, annotated with their platform."""
        platform = {PLATFORM: str(self.platform)}
        return tuple(replace(each, annotations=platform) for each in (*self.locks, self.sbom, self.findings) if each)


class NewAttachment(NamedTuple):
    """An artifact that a push attached, and that was not attached before."""

    artifact_type: str
    size: int
    """Bytes of its content."""


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """Index that the tag names after the push."""

    index: Descriptor
    unattached: str = ""
    """Reason why the findings are not attached; empty if they are, or if there are none."""
    attached: tuple[NewAttachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Goal:
    """Tag that a push sets, in its repository or layout."""

    storage: Storage
    target: Reference
    presence: Presence
    reuse: ReusePolicy
    now: Descriptor | None
    """What the tag names before the push."""
    append: bool
    """Keep the tag's images for other platforms."""
    keep: tuple[Platform, ...] | None = None
    """With `append`, the only other platforms to keep; None for all."""


def publish(
    goal: Goal, document: Callable[[Sequence[Pair]], Documents], attachments: Attachments, uploads: Uploads
) -> PublishedIndex:
    """Upload the documents that `document` makes and set the tag of `goal` to their index.

    `document` gets the images of other platforms to keep. Manifests are uploaded even if the tag names
    them already: a registry takes a manifest only if it has everything that the manifest names. With
    `append`, the index is rebuilt until the tag includes everything that concurrent pushes added.
    Registries have no compare-and-swap: of two pushes that set the tag at the same moment one is lost,
    and the loser finds out when it reads the tag again and retries.
    """
    storage, target, now = goal.storage, goal.target, goal.now
    for _ in range(_TRIES):
        others = (
            destination.others(storage, now, attachments.platform, goal.reuse, goal.keep) if goal.append and now else ()
        )
        made = document(others)
        index = made.index.descriptor
        try:
            uploads.documents(made)
        except (Denied, InvalidContent, NotFound):
            _check_others(storage, target, others)
            # A registry that takes nothing, from this user or now, needs nothing if all of it is there.
            named = now is not None and now.digest == index.digest and not goal.presence.recalled
            if not (named and all(storage.exists(each.descriptor) for each in made.manifests)):
                raise
        if now and now.digest == index.digest:
            return attach(goal, index, attachments)
        before = now if others else None
        published = attach(goal, index, attachments, before, {str(each.image.platform) for each in others})
        if goal.append and _digest(latest := destination.current(storage, target)) != _digest(now):
            now = latest
            continue
        uploads.document(made.index, tag=target.tag)
        if not goal.append:
            return published
        latest = destination.current(storage, target)
        if latest and (latest.digest == index.digest or attachments.platform in destination.platforms(storage, latest)):
            return published
        now = latest
    raise BuilderError(f"{target}: other pushes keep changing the tag; {attachments.platform} not added; push again")


def attach(
    goal: Goal,
    index: Descriptor,
    attachments: Attachments,
    before: Descriptor | None = None,
    others: Collection[str] = (),
) -> PublishedIndex:
    """Sign `index` and attach its artifacts, with those of the `others`, its other platforms, from the index `before` it.

    Idempotent. An artifact that is listed but that `goal.presence` does not know is asked for, and sent again if it is
    gone.
    """
    storage, presence = goal.storage, goal.presence
    if attachments.key:
        from lamella.layers.signing.cosign import sign_digest

        sign_digest(storage, goal.target, index.digest, attachments.key)
    own = attachments.artifacts
    artifacts = list(own)
    attached: list[NewAttachment] = []
    try:
        if before and before.digest != index.digest:
            artifacts += _of_others(storage, before, others)
        # One request for all artifacts: a push that changes nothing takes few requests.
        there = referrers.referrers_to_extend(storage, index) if artifacts else ()
        for artifact in artifacts:
            content = str(Digest.of(artifact.content))
            known = presence.has(content)
            made = referrers.attach(storage, index, artifact, there, check=not known)
            if not known:
                presence.confirm([content])
            if artifact in own and made.digest not in {each.digest for each in there}:
                attached.append(NewAttachment(artifact.artifact_type, len(artifact.content)))
    except LayersError as error:
        # A user asks for a bill of materials; findings and locks are attached to every push that has them.
        if any(artifact.artifact_type not in (FINDINGS, LOCK) for artifact in artifacts):
            raise
        return PublishedIndex(index, str(error), tuple(attached))
    return PublishedIndex(index, attached=tuple(attached))


def _of_others(storage: Storage, before: Descriptor, others: Collection[str]) -> Iterator[Artifact]:
    """Findings, bills of materials and locks of the platforms `others`, attached to the index `before`."""
    for referrer in referrers.referrers_to_extend(storage, before):
        if referrer.artifact_type not in {FINDINGS, SBOM, LOCK}:
            continue
        # One that is gone from the registry can't be copied: the next push for its platform attaches it again.
        with contextlib.suppress(NotFound):
            annotations = referrers.annotations_of(storage, referrer)
            if annotations.get(PLATFORM) in others:
                title = referrers.title_of(storage, referrer)
                content = referrers.content_of(storage, referrer)
                yield referrers.Artifact(referrer.artifact_type, content, annotations, title)


def _check_others(storage: Storage, target: Reference, others: Sequence[Pair]) -> None:
    """Raise `BuilderError` if a manifest of another platform is gone: only a push for that platform restores it."""
    for pair in others:
        if not all(storage.exists(each) for each in (pair.image, *pair.packages)):
            raise BuilderError(
                f"{target}: the manifests for {pair.image.platform} are gone from it; push that platform again, or push "
                "without --append"
            )


def _digest(descriptor: Descriptor | None) -> str:
    return str(descriptor.digest) if descriptor else ""
