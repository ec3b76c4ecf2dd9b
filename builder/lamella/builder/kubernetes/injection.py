"""Add an environment to the pods of a manifest, by edits of its text.

An addition can be taken out exactly: names that only Lamella uses mark items, and annotations of the pod record the
reference, lists that were empty before, and a PATH that was made longer. Adding takes out an earlier environment first.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes import edits
from lamella.builder.kubernetes.additions import INIT_CONTAINERS, SYSTEM_PATH, VOLUMES, additions
from lamella.builder.kubernetes.growth import Plan, place
from lamella.builder.kubernetes.nodes import entry, items, parse, text_of, value
from lamella.builder.kubernetes.pod_templates import WITHOUT_IMAGE_VOLUMES, pod_templates
from lamella.builder.kubernetes.records import ENVIRONMENT, KEPT, RECORD, environment_of, prefixes
from lamella.builder.kubernetes.removal import Injected, InjectedPod, remove_environment
from lamella.builder.kubernetes.selection import plan_selection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.builder.kubernetes.additions import Additions
    from lamella.builder.kubernetes.nodes import Node
    from lamella.builder.kubernetes.options import InjectOptions
    from lamella.builder.kubernetes.pod_templates import Container, PodTemplate

_FIRST = re.compile(r"[^\r\n]*(?:\r\n|\n|\r)\s*")


def inject(text: str, options: InjectOptions, *, name: str = "manifest") -> Injected:
    """Return the manifest `text` with the environment in its pods; nothing else of the text changes.

    `name` is the manifest's in messages. An environment that is there already is replaced. Raises `InvalidManifest`, also
    unless the reference is pinned, as `resolve_options` returns it.
    """
    options.check_pinned()
    removed = remove_environment(text, name=name)
    before = {(pod.kind, pod.name, pod.path): pod.reference for pod in removed.pods}
    plan = Plan(parse(removed.text, name))
    everything: list[PodTemplate] = []
    pods: list[InjectedPod] = []
    for root in plan.stream.roots:
        templates = list(pod_templates(root))
        everything += templates
        plan.style = edits.style_of(plan.stream, root)
        for template, prefix in zip(templates, prefixes(templates), strict=True):
            if chosen := _chosen(template, options):
                _plan_pod(plan, template, chosen, options, prefix)
                names = tuple(each.name for each in chosen)
                pod = InjectedPod(template.kind, template.name, template.path, names, options.reference)
                pods.append(replace(pod, replaced=before.get((pod.kind, pod.name, pod.path), "")))
    if not everything:
        raise InvalidManifest(
            f"{name}: has no pods; give a manifest with a Pod, Deployment, StatefulSet, DaemonSet, Job, CronJob, "
            "DaskCluster, RayCluster, SparkApplication, Workflow or the like"
        )
    _check_names(everything, options, name)
    _check_shared(plan, everything, options)
    written = edits.apply(removed.text, plan.edits())
    if remove_environment(written, name=name).text != removed.text:
        raise InvalidManifest(f"{name}: not restorable as it is written; write its pods in block style")
    return Injected(written, tuple(pods))


def _chosen(template: PodTemplate, options: InjectOptions) -> tuple[Container, ...]:
    if options.containers:
        return tuple(each for each in template.containers if each.name in options.containers)
    return tuple(each for each in template.containers if not each.starts)


def _check_names(templates: Sequence[PodTemplate], options: InjectOptions, name: str) -> None:
    names = sorted({each.name for template in templates for each in template.containers})
    for wanted in options.containers:
        if wanted not in names:
            close = difflib.get_close_matches(wanted, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{name} has {', '.join(names) or 'none'}"
            raise InvalidManifest(f"--container {wanted}: no such container; {hint}")
    if not options.containers and not any(_chosen(template, options) for template in templates):
        raise InvalidManifest(f"{name}: its pods have no containers; add one first")


def _plan_pod(
    plan: Plan, template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions, prefix: str
) -> None:
    _check_conflicts(template, chosen, options)
    added = additions(template, chosen, options)
    words: set[str] = set()

    def grow(owner: Node, key: str, values: Sequence[dict[str, Any]], of: str = "", *, first: bool = False) -> None:
        if values:
            where = place(plan.stream, owner, (key,), "sequence", prefix=f"{prefix}{of}", label=template.label)
            plan.add_items(where, list(values), first=first)
            words.update(filter(None, [where.kept]))

    grow(template.pod, "initContainers", added.init_containers, first=True)
    grow(template.volumes, "volumes", added.volumes)
    for container in chosen:
        of = f"{container.name}."
        variables, word = _variables(plan, template, container, added, options)
        grow(container.node, "env", variables, of)
        grow(container.node, "volumeMounts", [added.mount], of)
        words.update(f"{prefix}{of}{each}" for each in word)
    words |= plan_selection(plan, template, options, prefix)
    where = place(plan.stream, template.owner, template.annotations, "mapping", prefix=prefix, label=template.label)
    words.update(filter(None, [where.kept]))
    record = {RECORD: " ".join(sorted(words))} if words else {}
    plan.add_entries(where, {ENVIRONMENT: options.reference} | record)


def _check_conflicts(template: PodTemplate, chosen: tuple[Container, ...], options: InjectOptions) -> None:
    if environment_of(template):
        raise InvalidManifest(
            f"{template.label}: has the annotation {ENVIRONMENT}, and no container with that environment; remove the "
            "annotation"
        )
    system = text_of(template.pod, "os", "name") or text_of(
        value(template.pod, "nodeSelector") or template.selector, "kubernetes.io/os"
    )
    if system not in ("", "linux"):
        raise InvalidManifest(
            f"{template.label}: is for nodes with {system}, and environments are for Linux; name other pods' containers "
            "with --container, or keep this pod in another file"
        )
    if options.method == "image-volume" and template.kind in WITHOUT_IMAGE_VOLUMES:
        raise InvalidManifest(
            f"{template.label}: its operator's schema has no image volumes, and the API server would drop them; use "
            "--method init or host"
        )
    for key, owner, taken in (
        ("volume", value(template.volumes, "volumes"), VOLUMES),
        ("init container", value(template.pod, "initContainers"), INIT_CONTAINERS),
    ):
        for each in items(owner):
            if text_of(each, "name") in taken:
                raise InvalidManifest(
                    f"{template.label}: has a {key} {text_of(each, 'name')} that lamella inject did not make; rename it"
                )
    for container in chosen:
        for each in items(value(container.node, "volumeMounts")):
            at = posixpath.normpath(text_of(each, "mountPath") or ".")
            if at == options.target or at.startswith(f"{options.target}/"):
                raise InvalidManifest(
                    f"{template.label}: container {container.name} mounts {text_of(each, 'name')} at {at}, where the "
                    "environment belongs; mount that elsewhere, or choose another --path"
                )


def _variables(
    plan: Plan, template: PodTemplate, container: Container, added: Additions, options: InjectOptions
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return variables to add, and words for the record. A PATH that is there is made longer."""
    variables = list(added.variables)
    programs = f"{options.target}/bin"
    default = f"{programs}:{SYSTEM_PATH}"
    found = next((each for each in items(value(container.node, "env")) if text_of(each, "name") == "PATH"), None)
    if found is None:
        return [*variables, *([{"name": "PATH", "value": default}] if options.search_path else [])], []
    given = entry(found, "value")
    current = text_of(found, "value")
    if f"{current}:".startswith(f"{programs}:"):
        return variables, [f"PATH={KEPT}"]
    if not options.search_path:
        return variables, []
    if given is None or given.value.kind != "scalar" or given.value.is_null:
        raise InvalidManifest(
            f"{template.label}: container {container.name} has a PATH that is not written there; write its value, or "
            "use --no-path"
        )
    plan.insert(first_character(plan.stream.text, given.value), f"{programs}:" if current else programs)
    return variables, [f"PATH={programs}"]


def first_character(text: str, scalar: Node) -> int:
    """Return the place of the first character of a scalar's value."""
    if scalar.style in ("|", ">"):
        found = _FIRST.match(text, scalar.inside)
        return found.end() if found else scalar.end
    return scalar.inside + bool(scalar.style)


def _check_shared(plan: Plan, templates: Sequence[PodTemplate], options: InjectOptions) -> None:
    """Raise `InvalidManifest` if a container that does not get the environment shares what changes, by an anchor."""
    touched = plan.touched()
    for template in templates:
        chosen = _chosen(template, options)
        for container in template.containers:
            if container in chosen:
                continue
            for part in (container.node, value(container.node, "env"), value(container.node, "volumeMounts")):
                if part is not None and id(part) in touched:
                    raise InvalidManifest(
                        f"{template.label}: container {container.name} shares its YAML with one that gets the "
                        "environment, by an anchor; name both with --container, or write them apart"
                    )
