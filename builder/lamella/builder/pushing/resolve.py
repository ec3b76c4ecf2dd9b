"""Resolve a push: its layers and documents, with everything known before the destination is read beyond its tag."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.content.names import check_names
from lamella.builder.errors import BuilderError
from lamella.builder.image import findings_report
from lamella.builder.image.documents import About, ImageLayer, PackageLayer, documents
from lamella.builder.layer import layer_set
from lamella.builder.layer.code_fingerprint import Remembered
from lamella.builder.pushing import destination
from lamella.builder.pushing.earlier import Earlier
from lamella.builder.pushing.presence import Presence
from lamella.builder.pushing.publish import Attachments
from lamella.builder.pushing.reuse_policy import reuse_policy
from lamella.layers.attaching.listing import LOCK
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import Artifact
from lamella.layers.storages import open_storage, trust_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.environment import Environment
    from lamella.builder.image.documents import Base, Documents, Pair
    from lamella.builder.layer.cache import BuiltLayer, LayerCache
    from lamella.builder.layer.layer_set import LayerSet
    from lamella.builder.pushing.options import PushOptions
    from lamella.builder.pushing.reuse_policy import ReusePolicy
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage
    from lamella.layers.progress.display import Progress
    from lamella.layers.settings.trust import Trust


@dataclass(frozen=True, slots=True)
class Tools:
    """Storage, trust, cache, presence and progress, for every step of a push."""

    storage: Storage
    target: Reference
    trust: Trust
    cache: LayerCache
    presence: Presence
    progress: Progress
    earlier: Earlier = field(default_factory=Earlier)
    """Last push of this process to this target."""


def tools_for(
    storage: Storage, target: Reference, trust: Trust, cache: LayerCache, progress: Progress, *, check: bool
) -> Tools:
    """Return the tools of a push to `target`. `check`: ask the destination for everything."""
    place = "" if target.is_layout else f"{target.registry}/{target.repository}"
    return Tools(storage, target, trust, cache, Presence(storage, cache, place, check=check), progress)


@dataclass(frozen=True, slots=True)
class Resolved:
    """Layers to push, with everything known before the destination is read beyond its tag."""

    environment: Environment
    options: PushOptions
    base: Base | None
    layers: LayerSet
    remembered: Remembered
    reuse: ReusePolicy
    cached: Mapping[str, BuiltLayer]
    """Layers that the cache has, by key."""
    tag: Descriptor | None
    """Index that the tag names now."""

    def documents(self, known: Mapping[str, BuiltLayer], others: Sequence[Pair]) -> Documents:
        """Documents of these layers. The index also names `others`, the images for other platforms."""
        environment, options = self.environment, self.options
        about = About(environment.platform, options.image_prefix, environment.interpreter.version, environment.needs)
        image = [ImageLayer(item.packages, item.key, known[item.key]) for item in self.layers.image]
        packages = _packages(self.layers, known)
        return documents(about, packages, image, base=self.base, settings=options.image, others=others)

    def attachments(self, known: Mapping[str, BuiltLayer]) -> Attachments:
        """Findings, bill of materials, locks and signing key for the index."""
        report = findings_report.artifact(self.environment, self.options.image_prefix)
        bill = _bill(self.layers, known, self.environment) if self.options.sbom else None
        locks = tuple(
            Artifact(LOCK, text.encode(), title=name) for name, text in sorted(self.environment.locks.items())
        )
        return Attachments(self.environment.platform, report, bill, locks, self.options.signing_key)


def resolve(tools: Tools, environment: Environment, options: PushOptions) -> Resolved:
    """Compute the layers of `environment` and look them up in the cache. Reads the base image and the tag.

    Raises `CannotBuild` if layers would collide, or hold a name that no node unpacks.
    """
    remembered = Remembered(tools.cache)
    known = layer_set.recall(environment, options.image_prefix, options.compression, remembered)
    if known is None:
        check_names(environment.packages, options.image_prefix)
        tools.earlier.check_collisions(environment.packages)
    base = _base(tools, environment, options)
    count = len(base.layers) if base else 0
    if count >= options.max_layers:
        raise BuilderError(
            f"--base {options.base}: has {count} layers, leaving none of --max-layers {options.max_layers} for the "
            "environment; raise --max-layers, or use a smaller base",
            code="invalid",
        )
    layers = layer_set.layers(
        environment,
        image_prefix=options.image_prefix,
        compression=options.compression,
        image_layers=options.max_layers - count,
        notes=remembered,
        known=tools.earlier.keys,
        answers=known,
    )
    if known is None:
        layer_set.remember(environment, options.image_prefix, options.compression, remembered, layers)
    reuse = reuse_policy(tools.target, options.signing_key, tools.trust)
    cached = cached_layers(tools.cache, layers, reuse)
    tag = destination.current(tools.storage, tools.target)
    return Resolved(environment, options, base, layers, remembered, reuse, cached, tag)


def cached_layers(cache: LayerCache, layers: LayerSet, reuse: ReusePolicy) -> dict[str, BuiltLayer]:
    """Map layer keys to those of `layers` that the cache has and `reuse` accepts."""
    return {item.key: built for item in layers.all if (built := reuse.find(cache, item.key))}


def _base(tools: Tools, environment: Environment, options: PushOptions) -> Base | None:
    if not options.base:
        return None
    from lamella.builder.image import base as bases

    reference = Reference.parse(options.base)
    trust = trust_for(reference, tools.target, tools.trust)
    with contextlib.closing(open_storage(reference, trust)) as storage:
        return bases.read_base(storage, reference, environment.platform, trust)


def _bill(layers: LayerSet, known: Mapping[str, BuiltLayer], environment: Environment) -> Artifact:
    from lamella.builder.image import sbom

    packages = [content.package for content in layers.packages]
    return Artifact(sbom.MEDIA_TYPE, sbom.sbom(zip(packages, _packages(layers, known), strict=True), environment))


def _packages(layers: LayerSet, known: Mapping[str, BuiltLayer]) -> list[PackageLayer]:
    return [
        PackageLayer(
            content.package.name,
            content.package.version,
            content.package.origin,
            content.wanted.key,
            known[content.wanted.key],
        )
        for content in layers.packages
    ]
