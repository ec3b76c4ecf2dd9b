"""The nodes that a pod selects: those of the environment's architectures.

One architecture is an entry of the node selector. Several are an expression in each term of the required node affinity
that allows others, since the scheduler takes a node that one of the terms fits. Source: kubernetes.io, Assigning Pods to
Nodes.
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
    wanted, given = set(options.architectures), _given(template)
    named = {each for allowed in given for each in allowed or ()}
    if wanted and named and None not in given and not named & wanted:
        raise InvalidManifest(
            f"{template.label}: selects nodes with {', '.join(sorted(named))}, and the environment is for "
            f"{', '.join(options.architectures)}; push it for that platform too, or change the selector"
        )
    if not wanted or (given and all(_fits(each, wanted) for each in given)):
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
    word = f"{prefix}{SELECTED}={','.join(wanted)}@"
    where = place(plan.stream, template.pod, TERMS, "sequence", prefix=prefix, label=template.label)
    if where.path:
        plan.add_items(where, [{"matchExpressions": [expression]}])
        return set(filter(None, [f"{word}0", where.kept]))
    words: set[str] = set()
    changed: list[str] = []
    for index, term in enumerate(items(value(template.pod, *TERMS))):
        # A term without conditions fits no node. One for other architectures alone fits none with the expression.
        if any(_conditions(term)) and not _fits(_allowed(term), set(wanted)):
            of = term_words(prefix, index)
            at = place(plan.stream, term, ("matchExpressions",), "sequence", prefix=of, label=template.label)
            plan.add_items(at, [expression])
            words.update(filter(None, [at.kept]))
            changed.append(str(index))
    return words | ({word + ",".join(changed)} if changed else set())


def _conditions(term: Node) -> Iterator[Node]:
    for key in ("matchExpressions", "matchFields"):
        yield from items(value(term, key))


def _given(template: PodTemplate) -> list[set[str] | None]:
    """Return the architectures that the node selector allows, or those of each term of the required affinity."""
    selector = scalars(value(template.pod, "nodeSelector") or template.selector)
    if ARCHITECTURE in selector:
        return [{selector[ARCHITECTURE]}]
    terms = items(value(value(template.pod, "affinity") or template.affinity, *TERMS[1:]))
    return [_allowed(term) for term in terms if any(_conditions(term))]


def _allowed(term: Node) -> set[str] | None:
    """Return the architectures that all expressions of a term allow; None without an expression for them."""
    allowed: set[str] | None = None
    for each in items(value(term, "matchExpressions")):
        if text_of(each, "key") == ARCHITECTURE and text_of(each, "operator") == "In":
            values = {one.value for one in items(value(each, "values"))}
            allowed = values if allowed is None else allowed & values
    return allowed


def _fits(allowed: set[str] | None, wanted: set[str]) -> bool:
    return allowed is not None and allowed <= wanted
