"""Push: an environment becomes layers, the layers that are missing go to the registry, a tag names them."""

from __future__ import annotations

import contextlib
import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder import base as bases
from lamella.builder import destination, wanted
from lamella.builder.build import build
from lamella.builder.bytecode import Compiler
from lamella.builder.cache import LayerCache
from lamella.builder.errors import BuilderError
from lamella.builder.image import About, Documents, ImageLayer, PackageLayer, Settings, documents
from lamella.builder.plan import PlannedLayer, PushPlan, plan
from lamella.builder.survey import look
from lamella.builder.upload import Uploads
from lamella.layers.errors import LayersError
from lamella.layers.progress import Silent
from lamella.layers.reference import Reference
from lamella.layers.storage import in_the_clear, open_storage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lamella.builder.cache import Built
    from lamella.builder.environment import Environment
    from lamella.builder.image import Base
    from lamella.builder.pack import Compression
    from lamella.builder.wanted import Layers
    from lamella.layers.oci import Descriptor
    from lamella.layers.progress import Progress
    from lamella.layers.storage import Storage

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
    insecure: bool = False,
    dry_run: bool = False,
    append: bool = False,
    sbom: bool = False,
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Pushes the environment at `prefix` (by default the active one) as `reference`, a tag in a registry or layout.

    What the scan found is attached to the index, so that nodes can ask for it. `local`, `include`
    and `wheels` are those of `scan`. `base` is a reference to an image to put it on. `append` keeps what the tag names for
    other platforms. `sbom` attaches a bill of materials to the index. Raises `BuilderError` and `LayersError`.
    """
    from lamella.builder.scan import scan

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
        insecure=insecure,
        dry_run=dry_run,
        append=append,
        sbom=sbom,
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
    insecure: bool = False,
    dry_run: bool = False,
    append: bool = False,
    sbom: bool = False,
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """`push` for an environment that was scanned already."""
    target = _target(reference, image_prefix)
    cache = cache or LayerCache()
    progress = progress or Silent()
    settings = settings or Settings()
    with contextlib.closing(open_storage(target, insecure=insecure, create=True, mirrors=False)) as storage:
        under = _base(base, environment, target, insecure=insecure)
        image_layers = max_layers - (len(under.layers) if under else 0)
        if image_layers < 1:
            raise BuilderError(
                f"the base {base} has {len(under.layers) if under else 0} layers, and {max_layers} are all there may be: "
                "raise --max-layers, or take a smaller base"
            )
        layers = wanted.layers(
            environment,
            image_prefix=image_prefix,
            compression=compression,
            image_layers=image_layers,
            notes=cache,
        )
        about = About(environment.platform, image_prefix, environment.interpreter.version, environment.needs)
        cached = {item.key: built for item in layers.all if (built := cache.find(item.key))}
        now = destination.current(storage, target)
        others = destination.others(storage, now, environment.platform) if append and now else ()
        document = functools.partial(documents, about, base=under, settings=settings, others=others)
        if len(cached) == len(layers.all):
            made = document(*_described(layers, cached))
            if now and now.digest == made.index.descriptor.digest:
                if sbom and not dry_run:
                    _attach_sbom(storage, layers, cached, made)
                unattached = "" if dry_run else _attach_findings(storage, environment, image_prefix, made)
                return replace(_unchanged(environment, target, layers, cached, made), unattached=unattached)
        survey = look(storage, target, layers.all, environment.platform, now=now, cache=cache, cached=cached)
        known = survey.known
        decided = plan(str(target), layers.all, known, lambda built: cache.blob_path(built) is not None, survey.there)
        if dry_run:
            return Pushed(str(target), environment, decided, 0, len(decided.chosen("reuse")), 0, 0)
        with contextlib.ExitStack() as stack:
            uploads = stack.enter_context(contextlib.closing(Uploads(storage, survey.there, progress)))
            if under and base:
                _take_base(stack, uploads, under, Reference.parse(base), target, insecure=insecure)
            tools = _Tools(storage, cache, progress, uploads)
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
        made = document(*_described(layers, known))
        if not now or now.digest != made.index.descriptor.digest:
            try:
                _send(uploads, made, target)
            except LayersError:
                # A blob that was there within a day may be gone: then the registry refuses what names it.
                if not survey.believed:
                    raise
                survey.doubt(cache)
                uploads.make_sure([known[item.key] for item in layers.all], cache)
                _send(uploads, made, target)
        if sbom:
            _attach_sbom(storage, layers, known, made)
        unattached = _attach_findings(storage, environment, image_prefix, made, now if others else None)
        tagged = f"{target.tag}@{made.index.descriptor.digest}"
        survey.remember(cache, [known[item.key] for item in layers.all], tagged)
    pinned = str(target.at(made.index.descriptor.digest))
    built_count, reused = len(decided.chosen("build")), len(decided.chosen("reuse"))
    return Pushed(pinned, environment, decided, built_count, reused, uploads.count, uploads.moved, unattached)


def _target(reference: str, image_prefix: str) -> Reference:
    target = Reference.parse(reference)
    if target.digest or not target.tag:
        raise BuilderError(f"{reference} names a digest, and a push makes a new one: name a tag")
    if not _PREFIX.fullmatch(image_prefix):
        raise BuilderError(
            f"{image_prefix!r} can't be the image prefix: want an absolute path without spaces, such as /opt/env"
        )
    return target


def _base(base: str | None, environment: Environment, target: Reference, *, insecure: bool) -> Base | None:
    if not base:
        return None
    reference = Reference.parse(base)
    plain = in_the_clear(reference, target, insecure=insecure)
    with contextlib.closing(open_storage(reference, insecure=plain)) as storage:
        return bases.read(storage, reference, environment.platform)


def _send(uploads: Uploads, made: Documents, target: Reference) -> None:
    for document in (*made.configs, *made.manifests):
        uploads.document(document)
    uploads.document(made.index, tag=target.tag)


def _take_base(
    stack: contextlib.ExitStack,
    uploads: Uploads,
    under: Base,
    reference: Reference,
    target: Reference,
    *,
    insecure: bool,
) -> None:
    plain = in_the_clear(reference, target, insecure=insecure)
    source = stack.enter_context(contextlib.closing(open_storage(reference, insecure=plain)))
    same = reference.registry and reference.registry == target.registry
    for layer in under.layers:
        uploads.borrowed(layer.descriptor, source, reference.repository if same else "")


@dataclass(frozen=True, slots=True)
class _Tools:
    storage: Storage
    cache: LayerCache
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
            ship=lambda package: wanted.shipped(environment, package, image_prefix, cache),
            known=results,
            cache=cache,
            compiler=compiler,
            compression=compression,
            storage=tools.storage,
            progress=tools.progress,
            done=done,
        )
    return results


def _attach_sbom(storage: Storage, layers: Layers, known: Mapping[str, Built], made: Documents) -> None:
    from lamella.builder import sbom
    from lamella.layers.referrers import Artifact, attach

    packages = [content.package for content in layers.contents]
    content = sbom.sbom(zip(packages, _packages(layers, known), strict=True))
    attach(storage, made.index.descriptor, Artifact(sbom.MEDIA_TYPE, content))


def _attach_findings(
    storage: Storage, environment: Environment, image_prefix: str, made: Documents, before: Descriptor | None = None
) -> str:
    """Attaches what was found to the new index, with what is attached to the one `before` it for other platforms.

    Gives why it could not be: an environment that is pushed and tagged is no failure for a registry that takes no artifacts.
    """
    from lamella.builder import report
    from lamella.layers.findings import MEDIA_TYPE, PLATFORM
    from lamella.layers.referrers import Artifact, attach, content_of, referrers

    index = made.index.descriptor
    try:
        artifact = report.artifact(environment, image_prefix)
        if artifact:
            attach(storage, index, artifact)
        for referrer in referrers(storage, before, MEDIA_TYPE) if before and before.digest != index.digest else ():
            if referrer.annotations.get(PLATFORM) != str(environment.platform):
                content = content_of(storage, referrer)
                attach(storage, index, Artifact(MEDIA_TYPE, content, referrer.annotations))
    except LayersError as error:
        return str(error)
    return ""


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
    environment: Environment, target: Reference, layers: Layers, known: Mapping[str, Built], made: Documents
) -> Pushed:
    decided = tuple(PlannedLayer(item, "reuse", known[item.key]) for item in layers.all)
    pinned = str(target.at(made.index.descriptor.digest))
    return Pushed(pinned, environment, PushPlan(str(target), decided, unchanged=True), 0, len(decided), 0, 0)
