"""Collections of a manifest that grow: found, filled or made, each once, whatever aliases lead to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes import edits
from lamella.builder.kubernetes.nodes import entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lamella.builder.kubernetes.edits import Edit, Style
    from lamella.builder.kubernetes.nodes import Entry, Node, Stream


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a collection that exists, or that will be made."""

    mapping: Node
    """The last mapping on its path."""
    path: tuple[str, ...]
    """Keys below it that will be made; empty if the collection has content."""
    found: Entry | None = None
    """The entry of the first of them, if it exists and is empty."""
    kept: str = ""
    """`PATH=TEXT` of that entry, by which a removal keeps it."""

    @property
    def identity(self) -> tuple[int, tuple[str, ...]]:
        """Equal for two places if they are one."""
        return id(self.mapping), self.path


@dataclass(slots=True)
class Growth:
    """Additions at one place: items, or entries."""

    place: Place
    style: Style
    first: bool
    items: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Plan:
    """The additions to a stream."""

    stream: Stream
    style: Style = field(default_factory=edits.Style)
    growths: dict[tuple[int, tuple[str, ...]], Growth] = field(default_factory=dict)
    insertions: dict[int, Edit] = field(default_factory=dict)

    def add_items(self, place: Place, items: list[dict[str, Any]], *, first: bool = False) -> None:
        """Add items to a list, unless it has items of these names or keys from another of its owners."""
        growth = self.growths.setdefault(place.identity, Growth(place, self.style, first))
        names = {_name(each) for each in growth.items}
        growth.items += [each for each in items if _name(each) not in names]

    def add_entries(self, place: Place, entries: dict[str, str]) -> None:
        """Add entries to a mapping."""
        growth = self.growths.setdefault(place.identity, Growth(place, self.style, first=False))
        for key, each in entries.items():
            # A record of two pods with one mapping of annotations is that of both.
            words = {*growth.entries.get(key, "").split(), *each.split()}
            growth.entries[key] = " ".join(sorted(words))

    def insert(self, at: int, text: str) -> None:
        """Insert text at a place, once."""
        self.insertions[at] = edits.Edit(at, at, text)

    def touched(self) -> set[int]:
        """Return the identities of the nodes that change."""
        return {id(each.place.mapping) for each in self.growths.values()}

    def edits(self) -> Iterator[Edit]:
        """Yield the edits of the text."""
        yield from self.insertions.values()
        for growth in self.growths.values():
            yield from _edits(self.stream, growth)


def _name(item: dict[str, Any]) -> Any:
    return item.get("name", item.get("key"))


def place(stream: Stream, owner: Node, path: tuple[str, ...], kind: str, *, prefix: str = "", label: str = "") -> Place:
    """Return the place of the collection at `path` below `owner`, whether it exists or not.

    `prefix` is that of its words in the record; `label` names the owner in messages.
    """
    node = owner
    for index, key in enumerate(path):
        found = entry(node, key)
        if found is None:
            return Place(node, path[index:])
        content = found.value.content
        expected = kind if index == len(path) - 1 else "mapping"
        if content.kind != expected and not content.is_null:
            raise InvalidManifest(f"{label}: {key} is not a {expected}; correct it")
        if content.is_empty:
            if found.value.kind == "alias" and content.kind == "scalar":
                raise InvalidManifest(f"{label}: {key} is an alias of nothing; remove it")
            if content.is_null and "!" in stream.text[content.start : content.inside]:
                raise InvalidManifest(f"{label}: {key} is null by a tag; remove the tag")
            text = stream.text[content.inside : content.end] if content.kind == "scalar" else "[]"
            return Place(found.mapping, path[index:], found, f"{prefix}{'.'.join(path[: index + 1])}={text}")
        node = content
    return Place(node, ())


def _edits(stream: Stream, growth: Growth) -> Iterator[Edit]:
    place, style = growth.place, growth.style
    content: Any = growth.items or growth.entries
    if not place.path:
        if growth.items:
            yield edits.add_items(stream, place.mapping, growth.items, style, first=growth.first)
        for key, each in growth.entries.items():
            yield edits.add_entry(stream, place.mapping, key, each, style)
        return
    for key in reversed(place.path[1:]):
        content = {key: content}
    if place.found is None:
        yield edits.add_entry(stream, place.mapping, place.path[0], content, style)
    else:
        empty = place.found.value.content
        yield edits.fill(stream, place.found.key, empty, content, style, in_flow=place.found.mapping.flow)
