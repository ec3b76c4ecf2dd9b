"""The record of an injection in annotations: facts that a removal needs besides the names of items."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamella.builder.kubernetes.nodes import text_of, value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lamella.builder.kubernetes.nodes import Node
    from lamella.builder.kubernetes.pod_templates import PodTemplate

ENVIRONMENT, RECORD = "lamella.dev/environment", "lamella.dev/injected"
"""Annotations: the reference, and words about the state before."""
SELECTED = "arch"
"""The word for a node selector that was added; `arch=A,B@0,2` for an expression of these
architectures in the terms 0 and 2 of the node affinity."""
TERMS = ("affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
"""The path of a required node affinity in a pod."""
KEPT = "kept"
"""In `CONTAINER.PATH=kept`: it began with the environment before."""


def environment_of(template: PodTemplate) -> str:
    """Return the reference that a template was injected with; an empty string without one."""
    return text_of(template.owner, *template.annotations, ENVIRONMENT)


def words_of(template: PodTemplate) -> frozenset[str]:
    """Return the words of a template's record."""
    return frozenset(text_of(template.owner, *template.annotations, RECORD).split())


def term_words(prefix: str, index: int) -> str:
    """Return the prefix of the words of one term of the node affinity."""
    return f"{prefix}term{index}."


def prefixes(templates: Sequence[PodTemplate]) -> list[str]:
    """Return for each template the prefix of its words: its path, if it shares its annotations with another."""
    owners = [id(_annotated(template)) for template in templates]
    return [
        f"{template.path}." if owners.count(owner) > 1 else ""
        for template, owner in zip(templates, owners, strict=True)
    ]


def _annotated(template: PodTemplate) -> Node:
    """Return the mapping with the annotations, or the last one on their path that has content."""
    node = template.owner
    for key in template.annotations:
        below = value(node, key)
        if below is None or below.kind != "mapping" or below.is_empty:
            break
        node = below
    return node
