"""Push: an environment becomes layers, the layers that are missing go to the registry, a tag names them."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.content.bytecode import Compiler
from lamella.builder.errors import BuilderError
from lamella.builder.image import base as bases
from lamella.builder.image import findings_report
from lamella.builder.image.documents import About, Documents, ImageLayer, PackageLayer, Settings, documents
from lamella.builder.layer import wanted
from lamella.builder.layer.build import build
from lamella.builder.layer.cache import LayerCache
from lamella.builder.layer.plan import PlannedLayer, PushPlan, plan
from lamella.builder.layer.rules import Remembered
from lamella.builder.prefix.locate import SHARED
from lamella.builder.pushing import destination
from lamella.builder.pushing.publish import Attachments, Published, attach, publish
from lamella.builder.pushing.survey import look
from lamella.builder.pushing.upload import Uploads
from lamella.layers.errors import LayersError
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.referrers import Artifact
from lamella.layers.progress import Silent
from lamella.layers.storages import open_storage, trust_for
from lamella.layers.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from lamella.builder.content.pack import Compression
    from lamella.builder.environment import Environment
    from lamella.builder.image.documents import Base, Pair
    from lamella.builder.layer.cache import Built
    from lamella.builder.layer.wanted import Layers
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage
    from lamella.layers.progress import Progress
    from lamella.layers.signing.keys import PrivateKey

_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0\s:]+)+")


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a push did; with `dry_run`, what it found: then nothing was built or moved."""

    reference: str
    """Pinned to the index's digest; of a dry run that would build, the tag alone."""
    environment: Environment
    plan: PushPlan
    built: int
    """Layers that were built."""
    reused: int
    """Layers that were neither built nor uploaded."""
    uploaded: int
    """Layers that were uploaded."""
    moved: int
    """Bytes that were uploaded, manifests included."""
    unattached: str = ""
    """Why the findings could not be attached; empty where they were, or there are none."""


def push(
    reference: str,
    prefix: str | None = None,
    *,
    local: str | None = None,
    include: Sequence[str] = (),
    wheels: bool = False,
    image_prefix: str = "/opt/env",
    base: str | None = None,
    settings: Settings | None = None,
    compression: Compression = "zstd",
    max_layers: int = 100,
    trust: Trust = Trust(),
    dry_run: bool = False,
    append: bool = False,
    sbom: bool = False,
    signing_key: PrivateKey | None = None,
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes the environment at `prefix` (by default the active one) as `reference`, a tag in a registry or layout.

    What the scan found is attached to the index, so that nodes can ask for it. `local`, `include`
    and `wheels` are those of `scan`. `base` is a reference to an image to put it on. `append` keeps what the tag names for
    other platforms. `sbom` attaches a bill of materials to the index. Raises `BuilderError` and `LayersError`.
    """
    from lamella.builder.scanning.scan import scan

    _target(reference, image_prefix)
    environment = scan(prefix, local=local, include=include, wheels=wheels, progress=progress or Silent())
    return push_environment(
        environment,
        reference,
        image_prefix=image_prefix,
        base=base,
        settings=settings,
        compression=compression,
        max_layers=max_layers,
        trust=trust,
        dry_run=dry_run,
        append=append,
        sbom=sbom,
        signing_key=signing_key,
        cache=cache,
        progress=progress,
    )


def push_environment(
    environment: Environment,
    reference: str,
    *,
    image_prefix: str = "/opt/env",
    base: str | None = None,
    settings: Settings | None = None,
    compression: Compression = "zstd",
    max_layers: int = 100,
    trust: Trust = Trust(),
    dry_run: bool = False,
    append: bool = False,
    sbom: bool = False,
    signing_key: PrivateKey | None = None,
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """`push` for an environment that was scanned already."""
    target = _target(reference, image_prefix)
    cache = cache or LayerCache()
    progress = progress or Silent()
    settings = settings or Settings()
    with contextlib.closing(open_storage(target, trust, create=True, mirrors=False)) as storage:
        under = _base(base, environment, target, trust)
        image_layers = max_layers - (len(under.layers) if under else 0)
        if max_layers < 1:
            raise BuilderError(f"the runnable image can't have {max_layers} layers at most: want 1 or more")
        if under and image_layers < 1:
            raise BuilderError(
                f"the base {base} has {len(under.layers)} layers, and {max_layers} are all there may be: "
                "raise --max-layers, or take a smaller base"
            )
        remembered = Remembered(cache)
        layers = wanted.layers(
            environment,
            image_prefix=image_prefix,
            compression=compression,
            image_layers=image_layers,
            notes=remembered,
        )
        about = About(environment.platform, image_prefix, environment.interpreter.version, environment.needs)
        cached = {item.key: built for item in layers.all if (built := cache.find(item.key))}
        now = destination.current(storage, target)

        def document(known: Mapping[str, Built], others: Sequence[Pair]) -> Documents:
            return documents(about, *_described(layers, known), base=under, settings=settings, others=others)

        def attachments(known: Mapping[str, Built]) -> Attachments:
            bill = _bill(layers, known) if sbom else None
            return Attachments(
                environment.platform, findings_report.artifact(environment, image_prefix), bill, signing_key
            )

        if len(cached) == len(layers.all) and now:
            others = destination.others(storage, now, environment.platform) if append else ()
            if now.digest == document(cached, others).index.descriptor.digest:
                published = Published(now) if dry_run else attach(storage, target, now, attachments(cached))
                return _unchanged(environment, target, layers, cached, published)
        survey = look(
            storage, target, layers.all, environment.platform, trust=trust, now=now, cache=cache, cached=cached
        )
        known = survey.known
        decided = plan(str(target), layers.all, known, lambda built: cache.blob_path(built) is not None, survey.there)
        if dry_run:
            if under:
                decided = replace(decided, base=_lacking(storage, under, survey.there))
            return Pushed(str(target), environment, decided, 0, len(decided.chosen("reuse")), 0, 0)
        with contextlib.ExitStack() as stack:
            uploads = stack.enter_context(contextlib.closing(Uploads(storage, survey.there, progress)))
            if under and base:
                _take_base(stack, uploads, under, Reference.parse(base), target, trust=trust)
            tools = _Tools(storage, cache, remembered, progress, uploads)
            known = _build(
                decided,
                layers,
                known,
                environment=environment,
                image_prefix=image_prefix,
                compression=compression,
                tools=tools,
            )
            uploads.wait()

        def send(made: Documents) -> None:
            try:
                uploads.documents(made)
            except LayersError:
                # A blob that was there within a day may be gone: then the registry refuses what names it.
                if not survey.believed:
                    raise
                survey.doubt(cache)
                uploads.make_sure([known[item.key] for item in layers.all], cache)
                uploads.documents(made)

        published = publish(
            storage,
            target,
            functools.partial(document, known),
            attachments(known),
            send=send,
            uploads=uploads,
            now=now,
            append=append,
        )
        tagged = f"{target.tag}@{published.index.digest}"
        survey.remember(cache, [known[item.key] for item in layers.all], tagged)
    pinned = str(target.at(published.index.digest))
    built_count, reused = len(decided.chosen("build")), len(decided.chosen("reuse"))
    return Pushed(pinned, environment, decided, built_count, reused, uploads.count, uploads.moved, published.unattached)


def _target(reference: str, image_prefix: str) -> Reference:
    target = Reference.parse(reference)
    if target.digest or not target.tag:
        raise BuilderError(f"{reference} names a digest, and a push makes a new one: name a tag")
    if not _PREFIX.fullmatch(image_prefix):
        raise BuilderError(
            f"{image_prefix!r} can't be the image prefix: want an absolute path without spaces, such as /opt/env"
        )
    if image_prefix in SHARED:
        # What holds it would not be the environment's alone: `#!/usr/bin/env` is not to be rewritten by a node.
        raise BuilderError(f"{image_prefix} is not an environment's alone: name a folder in it, such as /opt/env")
    return target


def _base(base: str | None, environment: Environment, target: Reference, trust: Trust) -> Base | None:
    if not base:
        return None
    reference = Reference.parse(base)
    with contextlib.closing(open_storage(reference, trust_for(reference, target, trust))) as storage:
        return bases.read(storage, reference, environment.platform)


def _lacking(storage: Storage, under: Base, there: Collection[str]) -> tuple[Descriptor, ...]:
    asked = {layer.descriptor.digest: layer.descriptor for layer in under.layers}
    return tuple(each for each in asked.values() if str(each.digest) not in there and not storage.exists(each))


def _take_base(
    stack: contextlib.ExitStack,
    uploads: Uploads,
    under: Base,
    reference: Reference,
    target: Reference,
    *,
    trust: Trust,
) -> None:
    source = stack.enter_context(contextlib.closing(open_storage(reference, trust_for(reference, target, trust))))
    same = reference.registry and reference.registry == target.registry
    for layer in under.layers:
        uploads.borrowed(layer.descriptor, source, reference.repository if same else "")


@dataclass(frozen=True, slots=True)
class _Tools:
    storage: Storage
    cache: LayerCache
    remembered: Remembered
    progress: Progress
    uploads: Uploads


def _build(
    decided: PushPlan,
    layers: Layers,
    known: Mapping[str, Built],
    *,
    environment: Environment,
    image_prefix: str,
    compression: Compression,
    tools: _Tools,
) -> dict[str, Built]:
    """Builds and uploads as `decided`; gives what every key is."""
    results = dict(known)
    cache, uploads = tools.cache, tools.uploads

    def done(key: str, built: Built) -> None:
        results[key] = built
        uploads.layer(built, cache)

    for layer in decided.chosen("upload"):
        if layer.built:
            uploads.layer(layer.built, cache)
    wanted_keys = {layer.wanted.key for layer in decided.chosen("build")}
    with contextlib.closing(Compiler(environment.interpreter)) as compiler:
        build(
            [content for content in layers.contents if content.wanted.key in wanted_keys],
            [bundle for bundle in layers.bundles if bundle.key in wanted_keys],
            ship=lambda package: wanted.shipped(environment, package, image_prefix, tools.remembered),
            known=results,
            cache=cache,
            compiler=compiler,
            compression=compression,
            storage=tools.storage,
            progress=tools.progress,
            done=done,
        )
    return results


def _bill(layers: Layers, known: Mapping[str, Built]) -> Artifact:
    from lamella.builder.image import sbom

    packages = [content.package for content in layers.contents]
    return Artifact(sbom.MEDIA_TYPE, sbom.sbom(zip(packages, _packages(layers, known), strict=True)))


def _described(layers: Layers, known: Mapping[str, Built]) -> tuple[list[PackageLayer], list[ImageLayer]]:
    return _packages(layers, known), [ImageLayer(item.packages, item.key, known[item.key]) for item in layers.image]


def _packages(layers: Layers, known: Mapping[str, Built]) -> list[PackageLayer]:
    return [
        PackageLayer(
            content.package.name,
            content.package.version,
            content.package.origin,
            content.wanted.key,
            known[content.wanted.key],
        )
        for content in layers.contents
    ]


def _unchanged(
    environment: Environment, target: Reference, layers: Layers, known: Mapping[str, Built], published: Published
) -> Pushed:
    planned = tuple(PlannedLayer(item, "reuse", known[item.key]) for item in layers.all)
    decided = PushPlan(str(target), planned, unchanged=True)
    pinned = str(target.at(published.index.digest))
    return Pushed(pinned, environment, decided, 0, len(planned), 0, 0, published.unattached)
