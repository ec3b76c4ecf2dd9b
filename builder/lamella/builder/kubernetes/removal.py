"""Take an environment out of the pods of a manifest, so that its text is as before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lamella.builder.kubernetes import edits
from lamella.builder.kubernetes.additions import ARCHITECTURE, INIT_CONTAINERS, NAME, SYSTEM_PATH, VARIABLES, VOLUMES
from lamella.builder.kubernetes.edits import Edit
from lamella.builder.kubernetes.nodes import entry, items, parse, text_of, value
from lamella.builder.kubernetes.pod_templates import pod_templates
from lamella.builder.kubernetes.records import (
    ENVIRONMENT,
    KEPT,
    RECORD,
    SELECTED,
    TERMS,
    environment_of,
    prefixes,
    term_words,
    words_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from lamella.builder.kubernetes.nodes import Entry, Node, Stream
    from lamella.builder.kubernetes.pod_templates import Container, PodTemplate


@dataclass(frozen=True, slots=True)
class InjectedPod:
    """A pod template that has the environment, or had it."""

    kind: str
    name: str
    path: str
    """Of the template in the object, such as spec.template; empty for a pod."""
    containers: tuple[str, ...]
    reference: str
    replaced: str = ""
    """The reference that it had before, if it had one."""


@dataclass(frozen=True, slots=True)
class Injected:
    """A manifest with the environment, or without it, and the pods that have or had it."""

    text: str
    pods: tuple[InjectedPod, ...]


@dataclass(slots=True)
class _Removals:
    """Children to remove, by their collection, and values to restore."""

    stream: Stream
    doomed: dict[int, tuple[Node, list[Node]]] = field(default_factory=dict)
    replaced: dict[tuple[int, int], Edit] = field(default_factory=dict)

    def remove(self, collection: Node, children: Collection[Node]) -> None:
        """Remove items of a sequence, or entries by their keys."""
        marked = self.doomed.setdefault(id(collection), (collection, []))[1]
        marked += [each for each in children if each not in marked]

    def empties(self, collection: Node) -> bool:
        """Whether `collection` loses all its children."""
        marked = self.doomed.get(id(collection), (collection, []))[1]
        units = collection.children[:: 2 if collection.kind == "mapping" else 1]
        return bool(units) and all(each in marked for each in units)

    def restore(self, found: Entry, text: str) -> None:
        """Give an entry, whose content is removed, the text that it had: null as it was written, or empty brackets."""
        content = found.value.content
        if text == "[]" or (not text and not content.flow):
            return
        del self.doomed[id(content)]
        start = content.start if text else content.start - 1
        self.replaced[start, content.end] = Edit(start, content.end, text)

    def edits(self) -> Iterator[Edit]:
        """Yield the edits of the text."""
        yield from self.replaced.values()
        for collection, children in self.doomed.values():
            yield from edits.remove_children(self.stream, collection, children)


def remove_environment(text: str, *, name: str = "manifest") -> Injected:
    """Return the manifest `text` without an environment that `inject` added, and the pods that had it.

    `name` is the manifest's in messages. Raises `InvalidManifest` if `text` is not YAML, or was changed by hand there.
    """
    if ENVIRONMENT not in text:
        return Injected(text, ())
    removals = _Removals(parse(text, name))
    pods: list[InjectedPod] = []
    for root in removals.stream.roots:
        templates = list(pod_templates(root))
        for template, prefix in zip(templates, prefixes(templates), strict=True):
            reference = environment_of(template)
            had = [each for each in template.containers if _mount(each) is not None]
            if reference and had:
                words = {word[len(prefix) :] for word in words_of(template) if word.startswith(prefix)}
                _remove_pod(removals, template, words)
                names = tuple(each.name for each in had)
                pods.append(InjectedPod(template.kind, template.name, template.path, names, reference))
    return Injected(edits.apply(text, removals.edits()), tuple(pods))


def _mount(container: Container) -> Node | None:
    """Return the mount of the environment in a container; None for the init containers that make and check it."""
    if container.starts and container.name in INIT_CONTAINERS:
        return None
    return next((each for each in items(value(container.node, "volumeMounts")) if text_of(each, "name") == NAME), None)


def _remove_pod(removals: _Removals, template: PodTemplate, words: set[str]) -> None:
    _remove_items(removals, template.volumes, "volumes", VOLUMES, words)
    _remove_items(removals, template.pod, "initContainers", INIT_CONTAINERS, words)
    for container in template.containers:
        mount = _mount(container)
        if mount is None:
            continue
        of = f"{container.name}."
        own = {word.removeprefix(of) for word in words if word.startswith(of)}
        names = set(VARIABLES)
        if _takes_path(removals, container, f"{text_of(mount, 'mountPath')}/bin", own):
            names.add("PATH")
        _remove_items(removals, container.node, "env", names, own)
        _remove_items(removals, container.node, "volumeMounts", {NAME}, own)
    if SELECTED in words:
        _remove_entries(removals, template.pod, ("nodeSelector",), {ARCHITECTURE}, words)
    for word in words:
        if word.startswith(f"{SELECTED}="):
            _remove_affinity(removals, template, word.partition("=")[2], words)
    _remove_entries(removals, template.owner, template.annotations, {ENVIRONMENT, RECORD}, words)


def _takes_path(removals: _Removals, container: Container, programs: str, words: set[str]) -> bool:
    """Return whether PATH was added as a whole; shorten it if it was made longer."""
    found = next((each for each in items(value(container.node, "env")) if text_of(each, "name") == "PATH"), None)
    given = entry(found, "value")
    if given is None or f"PATH={KEPT}" in words:
        return False
    if f"PATH={programs}" not in words:
        return text_of(found, "value") == f"{programs}:{SYSTEM_PATH}"
    text = removals.stream.text
    start = text.find(programs, given.value.start, given.value.end)
    if start >= 0:
        end = start + len(programs)
        end += text.startswith(":", end)
        removals.replaced[start, end] = Edit(start, end, "")
    return False


def _remove_items(removals: _Removals, owner: Node, key: str, names: Collection[str], words: set[str]) -> None:
    found = entry(owner, key)
    if found is None:
        return
    sequence = found.value.content
    doomed = [each for each in sequence.children if text_of(each.content, "name") in names]
    if doomed:
        removals.remove(sequence, doomed)
        _close(removals, found, key, words)


def _remove_entries(
    removals: _Removals, owner: Node, path: tuple[str, ...], keys: Collection[str], words: set[str]
) -> None:
    on_path = _path_to(owner, path)
    if on_path:
        node = on_path[-1].value.content
        removals.remove(node, [each for each in node.children[::2] if each.value in keys])
        _close_path(removals, on_path, path, words)


def _remove_affinity(removals: _Removals, template: PodTemplate, added_to: str, words: set[str]) -> None:
    """Remove the expression for several architectures; a term that has nothing else was added with it.

    `added_to` is ARCHITECTURES@TERMS; without terms, as records once were, it is any term that has the expression.
    """
    architectures, _, numbers = added_to.partition("@")
    values, changed = architectures.split(","), numbers.split(",")
    on_path = _path_to(template.pod, TERMS)
    if not on_path:
        return
    terms = on_path[-1].value.content
    added: list[Node] = []
    for index, child in enumerate(terms.children):
        if numbers and str(index) not in changed:
            continue
        found = entry(child.content, "matchExpressions")
        doomed = [each for each in (found.value.content.children if found else []) if _selects(each.content, values)]
        if found is None or not doomed:
            continue
        if len(child.content.children) == 2 and doomed == found.value.content.children:
            added.append(child)
            continue
        removals.remove(found.value.content, doomed)
        of = term_words("", index)
        _close(removals, found, "matchExpressions", {word.removeprefix(of) for word in words if word.startswith(of)})
    if added:
        removals.remove(terms, added)
        _close_path(removals, on_path, TERMS, words)


def _selects(expression: Node, values: list[str]) -> bool:
    allowed = [each.value for each in items(value(expression, "values"))]
    operator = text_of(expression, "operator")
    return (text_of(expression, "key"), operator, allowed) == (ARCHITECTURE, "In", values)


def _path_to(owner: Node, path: tuple[str, ...]) -> list[Entry]:
    """Return the entries on `path`; an empty list unless all exist."""
    on_path: list[Entry] = []
    node = owner
    for key in path:
        found = entry(node, key)
        if found is None:
            return []
        on_path.append(found)
        node = found.value.content
    return on_path


def _close_path(removals: _Removals, on_path: list[Entry], path: tuple[str, ...], words: set[str]) -> None:
    for index in reversed(range(len(path))):
        if not _close(removals, on_path[index], ".".join(path[: index + 1]), words):
            return


def _close(removals: _Removals, found: Entry, dotted: str, words: set[str]) -> bool:
    """Return whether a collection that is empty now was removed with its key; it stays if it was there before."""
    content = found.value.content
    if not removals.empties(content) or found.value.kind == "alias":
        return False
    for word in words:
        if word.startswith(f"{dotted}="):
            removals.restore(found, word.partition("=")[2])
            return False
    del removals.doomed[id(content)]
    removals.remove(found.mapping, [found.key])
    return True
