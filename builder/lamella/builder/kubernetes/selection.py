"""The nodes that a pod selects: those of the environment's architectures.

One architecture is an entry of the node selector. Several are an expression in each term of the required node affinity,
since the scheduler takes a node that one of the terms fits. Source: kubernetes.io, Assigning Pods to Nodes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes.additions import ARCHITECTURE
from lamella.builder.kubernetes.growth import place
from lamella.builder.kubernetes.nodes import items, scalars, text_of, value
from lamella.builder.kubernetes.records import SELECTED, TERMS, term_words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.kubernetes.growth import Plan
    from lamella.builder.kubernetes.nodes import Node
    from lamella.builder.kubernetes.options import InjectOptions
    from lamella.builder.kubernetes.pod_templates import PodTemplate


def plan_selection(plan: Plan, template: PodTemplate, options: InjectOptions, prefix: str) -> set[str]:
    """Plan a selection of nodes if the pod has none that is as narrow; return words for the record.

    Raises `InvalidManifest` if the pod selects nodes that the environment is not for.
    """
    wanted, given = set(options.architectures), set(_selected(template))
    if wanted and given and not given & wanted:
        raise InvalidManifest(
            f"{template.label}: selects nodes with {', '.join(sorted(given))}, and the environment is for "
            f"{', '.join(options.architectures)}; push it for that platform too, or change the selector"
        )
    if not wanted or (given and given <= wanted):
        return set()
    return (_one if len(wanted) == 1 else _several)(plan, template, sorted(wanted), prefix)


def _one(plan: Plan, template: PodTemplate, wanted: list[str], prefix: str) -> set[str]:
    if template.selector is not None and value(template.pod, "nodeSelector") is None:
        return set()  # it would hide the one of the object
    where = place(plan.stream, template.pod, ("nodeSelector",), "mapping", prefix=prefix, label=template.label)
    plan.add_entries(where, {ARCHITECTURE: wanted[0]})
    return set(filter(None, [f"{prefix}{SELECTED}", where.kept]))


def _several(plan: Plan, template: PodTemplate, wanted: list[str], prefix: str) -> set[str]:
    if template.affinity is not None and value(template.pod, "affinity") is None:
        return set()  # as above
    expression: dict[str, Any] = {"key": ARCHITECTURE, "operator": "In", "values": wanted}
    words = {f"{prefix}{SELECTED}={','.join(wanted)}"}
    where = place(plan.stream, template.pod, TERMS, "sequence", prefix=prefix, label=template.label)
    if where.path:
        plan.add_items(where, [{"matchExpressions": [expression]}])
        return words | set(filter(None, [where.kept]))
    for index, term in enumerate(items(value(template.pod, *TERMS))):
        if any(_conditions(term)):  # a term without conditions fits no node
            of = term_words(prefix, index)
            at = place(plan.stream, term, ("matchExpressions",), "sequence", prefix=of, label=template.label)
            plan.add_items(at, [expression])
            words.update(filter(None, [at.kept]))
    return words


def _conditions(term: Node) -> Iterator[Node]:
    for key in ("matchExpressions", "matchFields"):
        yield from items(value(term, key))


def _selected(template: PodTemplate) -> Iterator[str]:
    """Yield the architectures that a pod's node selector or required affinity allows."""
    selector = scalars(value(template.pod, "nodeSelector") or template.selector)
    if ARCHITECTURE in selector:
        yield selector[ARCHITECTURE]
        return
    for term in items(value(value(template.pod, "affinity") or template.affinity, *TERMS[1:])):
        for each in items(value(term, "matchExpressions")):
            if text_of(each, "key") == ARCHITECTURE and text_of(each, "operator") == "In":
                yield from (allowed.value for allowed in items(value(each, "values")))
