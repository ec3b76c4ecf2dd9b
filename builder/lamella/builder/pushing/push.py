"""Push an environment: build its layers, upload the missing ones, set a tag."""

from __future__ import annotations

import contextlib
import functools
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lamella.builder.environment import Environment
from lamella.builder.errors import BuilderError
from lamella.builder.garbage import uncollected
from lamella.builder.layer import layer_set
from lamella.builder.layer.cache import LayerCache
from lamella.builder.prefix.locate import SHARED
from lamella.builder.pushing.decide import decide
from lamella.builder.pushing.earlier import Earlier
from lamella.builder.pushing.options import PushOptions
from lamella.builder.pushing.publish import Goal, NewAttachment, PublishedIndex, publish
from lamella.builder.pushing.resolve import cached_layers, resolve, tools_for
from lamella.builder.pushing.team_cache import tag_name
from lamella.builder.pushing.upload import Uploads
from lamella.builder.scanning.options import ScanOptions
from lamella.layers.errors import Denied, InvalidContent, NotFound
from lamella.layers.oci.reference import Reference
from lamella.layers.oci.values import is_image_prefix
from lamella.layers.progress.display import shown
from lamella.layers.settings.trust import Trust
from lamella.layers.storages import open_storage, trust_for
from lamella.layers.text import counted, size

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lamella.builder.image.documents import Base
    from lamella.builder.layer.cache import BuiltLayer
    from lamella.builder.layer.plan import PushPlan
    from lamella.builder.pushing.decide import Decided
    from lamella.builder.pushing.resolve import Resolved, Tools
    from lamella.layers.oci.documents import Descriptor
    from lamella.layers.oci.storage import Storage
    from lamella.layers.progress.display import Progress


@dataclass(frozen=True, slots=True, repr=False)
class Pushed:
    """Result of a push. With `dry_run` nothing was built or uploaded: see `plan`."""

    reference: str
    """Reference with the index's digest; with the tag alone after a dry run that would build."""
    environment: Environment
    plan: PushPlan
    built: int
    """Number of layers built."""
    reused: int
    """Number of layers neither built nor uploaded."""
    uploaded: int
    """Number of layers uploaded."""
    moved: int
    """Bytes uploaded, including manifests."""
    unattached: str = ""
    """Reason why the findings are not attached; empty if they are, or if there are none."""
    attached: tuple[NewAttachment, ...] = ()
    """Artifacts attached that were not attached before: findings, bill of materials."""
    new: bool = True
    """Whether the tag was not there before."""

    def __repr__(self) -> str:
        """One line."""
        layers = f"{counted(self.built, 'layer')} built, {self.uploaded:,} uploaded, {self.reused:,} reused"
        return f"<Pushed {self.reference}: {counted(len(self.environment.packages), 'package')}; {layers}; {size(self.moved)}>"


def push(
    reference: str,
    environment: Environment | str | None = None,
    options: PushOptions = PushOptions(),
    *,
    scan_options: ScanOptions = ScanOptions(),
    trust: Trust = Trust(),
    cache: LayerCache | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Push an environment as `reference`, a tag in a registry or in an OCI layout folder.

    `environment` is a scanned environment or a prefix to scan; the default is the running
    interpreter's, `sys.prefix`. The scan uses the image prefix of `options`. The findings are attached
    to the index. `cache` defaults to the user's. Without `progress`, a terminal and a notebook show
    bars. Idempotent: the tag changes last, and only if the index differs; content that the destination
    lost is sent again. Raises `BuilderError` and `LayersError`.
    """
    target = target_of(reference, options)
    with contextlib.ExitStack() as stack:
        bars = stack.enter_context(shown(progress))
        stack.enter_context(uncollected())
        if not isinstance(environment, Environment):
            from lamella.builder.content.precompiler import Precompiler
            from lamella.builder.scanning.scan import scan

            if not options.dry_run:
                precompiler = stack.enter_context(contextlib.closing(Precompiler(scan_options.cache)))
                options = replace(options, precompiler=precompiler)
            scan_options = replace(scan_options, image_prefix=options.image_prefix)
            environment = scan(environment, scan_options, progress=bars, precompiler=options.precompiler)
        cache = cache or LayerCache()
        storage = stack.enter_context(contextlib.closing(destination_of(target, trust, cache)))
        return push_to(storage, target, environment, options, trust=trust, cache=cache, progress=bars)


def destination_of(target: Reference, trust: Trust, cache: LayerCache) -> Storage:
    """Open the storage that `target` names to write. The caller closes it."""
    return open_storage(target, trust, create=True, mirrors=False, notes=cache)


def push_to(
    storage: Storage,
    target: Reference,
    environment: Environment,
    options: PushOptions,
    *,
    trust: Trust,
    cache: LayerCache,
    progress: Progress,
    earlier: Earlier | None = None,
) -> Pushed:
    """Push a scanned environment to `target` in `storage`, which stays open for more. Raises as `push` does.

    `earlier`: the last push to them, from which this one goes on.
    """
    with uncollected():
        tools = tools_for(storage, target, trust, cache, progress, check=options.check)
        tools = replace(tools, earlier=earlier or Earlier())
        return _push(tools, resolve(tools, environment, options))


def _push(tools: Tools, resolved: Resolved) -> Pushed:
    """Decide and act; once more, with every answer of earlier pushes forgotten, if the destination has lost something."""
    passes: list[tuple[PushPlan, Uploads]] = []
    while True:
        decided = decide(tools, resolved)
        if resolved.options.dry_run:
            return _planned(tools, resolved, decided)
        with contextlib.closing(Uploads(tools.storage, decided.there, tools.progress)) as uploads:
            passes.append((decided.plan, uploads))
            try:
                known = _execute(tools, resolved, decided, uploads)
                published = _publish(tools, resolved, known, uploads)
                break
            except (Denied, InvalidContent, NotFound) as error:
                # A registry refuses a manifest that names a lost blob, and a bundle can't be built of one.
                refused = decided.plan.unchanged or not isinstance(error, Denied)
                if not refused or not tools.presence.recalled:
                    raise
                tools.presence.doubt()
                resolved = replace(resolved, cached=cached_layers(tools.cache, resolved.layers, resolved.reuse))
    moved = {layer.wanted.key for plan, _ in passes for layer in plan.layers if layer.action != "reuse"}
    return Pushed(
        str(tools.target.at(published.index.digest)),
        resolved.environment,
        decided.plan,
        sum(len(plan.chosen("build")) for plan, _ in passes),
        len(decided.plan.layers) - len(moved),
        sum(uploads.count for _, uploads in passes),
        0 if decided.plan.unchanged else sum(uploads.moved for _, uploads in passes),
        published.unattached,
        published.attached,
        new=resolved.tag is None,
    )


def _planned(tools: Tools, resolved: Resolved, decided: Decided) -> Pushed:
    """Return the result of a dry run."""
    reference, planned = str(tools.target), decided.plan
    if planned.unchanged and resolved.tag:
        reference = str(tools.target.at(resolved.tag.digest))
    elif resolved.base:
        planned = replace(planned, base=_lacking(resolved.base, decided.there))
    return Pushed(
        reference, resolved.environment, planned, 0, len(planned.chosen("reuse")), 0, 0, new=resolved.tag is None
    )


def _execute(tools: Tools, resolved: Resolved, decided: Decided, uploads: Uploads) -> dict[str, BuiltLayer]:
    """Build and upload as decided, wait for every upload, and return the layers by key."""
    environment, options, cache = resolved.environment, resolved.options, tools.cache
    results = dict(decided.known)
    if decided.plan.unchanged:
        return results
    keys = {layer.wanted.key for layer in decided.plan.chosen("build")}
    if keys and not tools.earlier.is_pushed:
        # Before a build of minutes: a registry may be read-only, or this user without the right to push.
        tools.storage.check_writable()
    uploads.begin()

    def done(key: str, built: BuiltLayer, new: bool) -> None:
        results[key] = built
        uploads.layer(built, cache, hashed=new)

    with contextlib.ExitStack() as stack:
        if resolved.base and options.base and _lacking(resolved.base, decided.there):
            _take_base(stack, tools, uploads, resolved.base, Reference.parse(options.base))
        for layer in decided.plan.chosen("upload"):
            if layer.built:
                uploads.layer(layer.built, cache, ask=False)
        if keys:
            from lamella.builder.content.bytecode import Compiler
            from lamella.builder.layer.build import BuildTools, build

            precompiler = options.precompiler
            known = precompiler.stop(environment.interpreter, options.image_prefix) if precompiler else None
            compiler = stack.enter_context(contextlib.closing(Compiler(environment.interpreter, known)))
            build(
                [content for content in resolved.layers.packages if content.wanted.key in keys],
                [bundle for bundle in resolved.layers.bundles if bundle.key in keys],
                BuildTools(
                    lambda package: layer_set.shipped(environment, package, options.image_prefix, resolved.remembered),
                    cache,
                    compiler,
                    options.compression,
                    tools.storage,
                    tools.progress,
                    settled=bool(environment.digest),
                ),
                known=results,
                done=done,
            )
        uploads.wait()
    return results


def _publish(tools: Tools, resolved: Resolved, known: Mapping[str, BuiltLayer], uploads: Uploads) -> PublishedIndex:
    """Upload the documents, attach the artifacts, and set the tag."""
    presence = tools.presence
    options = resolved.options
    goal = Goal(tools.storage, tools.target, presence, resolved.reuse, resolved.tag, options.append, options.keep)
    published = publish(goal, functools.partial(resolved.documents, known), resolved.attachments(known), uploads)
    presence.confirm(uploads.confirmed)
    # Its layers are known: no later push needs to read it.
    presence.answers.tags[tag_name(tools.target.tag, published.index.digest, resolved.reuse)] = time.time()
    presence.remember()
    tools.earlier.pushed(published.index.digest, {item.key: known[item.key] for item in resolved.layers.all})
    return published


def target_of(reference: str, options: PushOptions) -> Reference:
    """Parse and check the reference to push to. Raises `BuilderError`, `InvalidReference`."""
    image_prefix = options.image_prefix
    target = Reference.parse(reference)
    if target.digest or not target.tag:
        raise BuilderError(f"{reference}: names a digest, which a push creates; name a tag instead", code="invalid")
    if not is_image_prefix(image_prefix):
        raise BuilderError(
            f"--image-prefix {image_prefix!r}: not an absolute path without spaces; use a path such as /opt/env",
            code="invalid",
        )
    if image_prefix in SHARED:
        # A node must not rewrite `#!/usr/bin/env`, which names this folder and not the environment.
        raise BuilderError(
            f"--image-prefix {image_prefix}: shared with the system; use a folder such as /opt/env", code="invalid"
        )
    if options.max_layers < 1:
        raise BuilderError(f"--max-layers {options.max_layers}: less than 1; the default is 100", code="invalid")
    return target


def _lacking(base: Base, there: Collection[str]) -> tuple[Descriptor, ...]:
    """Layers of `base` that are not `there`, each once."""
    return tuple(
        {
            layer.digest: layer for layer in (each.descriptor for each in base.layers) if str(layer.digest) not in there
        }.values()
    )


def _take_base(stack: contextlib.ExitStack, tools: Tools, uploads: Uploads, base: Base, reference: Reference) -> None:
    trust = trust_for(reference, tools.target, tools.trust)
    source = stack.enter_context(contextlib.closing(open_storage(reference, trust)))
    same = reference.registry and reference.registry == tools.target.registry
    for layer in base.layers:
        uploads.borrowed(layer.descriptor, source, reference.repository if same else "")
