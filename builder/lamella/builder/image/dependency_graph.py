"""Which package of an environment depends on which, from installers' records.

Sources: PEP 508, for Requires-Dist with markers and extras; conda's `depends`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.installed import conda_specs
from lamella.builder.installed.distributions import normalised

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Node(NamedTuple):
    """A package: its name in the graph, and its requirements as they are recorded."""

    ref: str
    name: str
    origin: str
    requires: Sequence[str]


def edges(nodes: Sequence[Node], markers: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the refs that each node's package depends on. A requirement that is not installed has no edge.

    `markers`: the environment that markers are evaluated in. Distributions depend on the interpreter.
    """
    conda = {node.name: node for node in nodes if node.origin == "conda"}
    pip = {normalised(node.name): node for node in nodes if node.origin in ("pypi", "local")}
    # A conda package stands for the distribution of its name.
    by_name = {normalised(name): node for name, node in conda.items()} | pip
    interpreter = next((node for node in nodes if node.origin == "python"), conda.get("python"))
    found: dict[str, set[str]] = {node.ref: set() for node in nodes}
    for node in conda.values():
        for text in node.requires:
            other = conda.get(conda_specs.name(text))
            if other:
                found[node.ref].add(other.ref)
    for node in pip.values():
        if interpreter:
            found[node.ref].add(interpreter.ref)
    for ref, other_ref in _of_distributions(pip, by_name, markers):
        found[ref].add(other_ref)
    return {ref: others - {ref} for ref, others in found.items()}


def roots(graph: Mapping[str, set[str]]) -> list[str]:
    """Return the fewest refs, in order, from which every other one is reached: those that nothing depends on, and of
    a circle that nothing else leads to, the first one."""
    needed = set().union(*graph.values())
    chosen = sorted(graph.keys() - needed)
    reached: set[str] = set()
    _reach(graph, chosen, reached)
    for ref in sorted(graph):
        if ref not in reached:
            chosen.append(ref)
            _reach(graph, [ref], reached)
    return sorted(chosen)


def _reach(graph: Mapping[str, set[str]], start: Sequence[str], reached: set[str]) -> None:
    waiting = list(start)
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += graph[ref]


def _of_distributions(
    pip: Mapping[str, Node], by_name: Mapping[str, Node], markers: Mapping[str, str]
) -> set[tuple[str, str]]:
    from packaging.markers import UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement

    parsed: dict[str, list[Requirement]] = {}
    for name, node in pip.items():
        parsed[name] = []
        for text in node.requires:
            try:
                parsed[name].append(Requirement(text))
            except InvalidRequirement:
                continue  # as in pip: an invalid requirement requires nothing
    found: set[tuple[str, str]] = set()
    extras: dict[str, set[str]] = {name: {""} for name in pip}
    waiting = [(name, "") for name in pip]
    while waiting:
        name, extra = waiting.pop()
        for wanted in parsed[name]:
            try:
                applies = wanted.marker is None or wanted.marker.evaluate({**markers, "extra": extra})
            except UndefinedEnvironmentName:
                continue
            other = normalised(wanted.name)
            if not applies or other not in by_name:
                continue
            found.add((pip[name].ref, by_name[other].ref))
            if other in pip:
                asked = wanted.extras - extras[other]
                extras[other] |= asked
                waiting += [(other, each) for each in asked]
    return found
