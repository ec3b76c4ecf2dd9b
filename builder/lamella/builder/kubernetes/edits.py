"""Edits of a text, at the places that its nodes have: entries and items added, replaced and removed.

An edit of a block collection adds whole lines behind its last one, so that removing them leaves the text as it was.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lamella.builder.errors import InvalidManifest
from lamella.builder.kubernetes.nodes import entries

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from lamella.builder.kubernetes.nodes import Node, Stream

Value = Any
"""A value to write, as `json` has them; a mapping keeps its order."""

_PLAIN = re.compile(r"\.?[A-Za-z/][A-Za-z0-9_./@$()-]*(?::[A-Za-z0-9_./@$()-]+)*|--[a-z]+|[0-9]+(?:m|k|Ki|M|Mi|G|Gi)")
_LONG = 80
"""Characters of a list of strings that are written on one line."""
# Words that some YAML parser reads as a boolean, as null or as a number.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", ".nan", ".inf"})


@dataclass(frozen=True, slots=True)
class Edit:
    """Text in place of the characters from `start` to `end`. Of insertions at one place, that of the deepest node is first."""

    start: int
    end: int
    text: str
    depth: int = 0


@dataclass(frozen=True, slots=True)
class Style:
    """How the lines of a text are indented."""

    step: int = 2
    """Columns by which a mapping is indented below its key."""
    dash: int = 0
    """Columns by which a sequence is."""


def apply(text: str, edits: Iterable[Edit]) -> str:
    """Return `text` with `edits`, which don't overlap."""
    parts, at = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end, -edit.depth)):
        if edit.start < at:
            raise InvalidManifest(f"character {edit.start}: two edits at one place; write that part in block style")
        parts += [text[at : edit.start], edit.text]
        at = edit.end
    return "".join([*parts, text[at:]])


def style_of(stream: Stream, root: Node) -> Style:
    """Return how a document is indented, by its first nested mapping and its first sequence."""
    step = dash = None
    waiting = [root]
    while waiting and (step is None or dash is None):
        node = waiting.pop(0)
        if node.kind == "mapping" and not node.flow:
            for each in entries(node):
                below = each.value
                if below.flow or not below.children:
                    continue
                by = stream.column(below.inside) - stream.column(each.key.start)
                if below.kind == "mapping" and step is None:
                    step = by
                elif below.kind == "sequence" and dash is None:
                    dash = by
        waiting += [child for child in node.children if child.children]
    return Style(max(1, step or 2), max(0, dash or 0))


def add_entry(stream: Stream, mapping: Node, key: str, value: Value, style: Style) -> Edit:
    """Add an entry at the end of `mapping`, which is not empty."""
    if mapping.flow:
        return _append_in_flow(stream, mapping, f"{json.dumps(key)}: {_flow(value)}")
    at = _slot(stream, mapping)
    return _lines(stream, at, block({key: value}, stream.column(mapping.inside), style), mapping.depth)


def add_items(stream: Stream, sequence: Node, values: Sequence[Value], style: Style, *, first: bool = False) -> Edit:
    """Add items at the end of `sequence`, which is not empty, or at its start."""
    if sequence.flow:
        written = [_flow(value) for value in values]
        if not first:
            return _append_in_flow(stream, sequence, *written)
        before = sequence.children[0].start
        separator = _separator(stream, sequence.children[0])
        return Edit(before, before, "".join(f"{each},{separator}" for each in written), sequence.depth)
    column = stream.column(sequence.inside)
    lines: list[str] = []
    for value in values:
        lines += _item(value, column, style, _gap(stream, sequence))
    at = _before(stream, sequence) if first else _slot(stream, sequence)
    return _lines(stream, at, lines, sequence.depth)


def fill(stream: Stream, key: Node, empty: Node, value: Value, style: Style, *, in_flow: bool) -> Edit:
    """Give the empty value of `key` content: within its brackets, in place of null, or on the lines below."""
    if empty.kind != "scalar" and empty.flow:
        inner = _flow(value)
        return Edit(empty.inside, empty.inside, inner[1:-1], empty.depth)
    if empty.start != empty.end and stream.text[empty.inside : empty.end].strip():
        return Edit(empty.inside, empty.end, _flow(value), empty.depth)
    if in_flow:
        return Edit(empty.end, empty.end, f" {_flow(value)}", empty.depth)
    column = stream.column(key.start)
    lines = block({"": value}, column, style)[1:]
    return _lines(stream, stream.line_end(empty.end), lines, empty.depth)


def remove_children(stream: Stream, collection: Node, doomed: Iterable[Node]) -> list[Edit]:
    """Remove items of a sequence, or entries of a mapping by their keys."""
    marked = {id(node) for node in doomed}
    if collection.kind == "mapping":
        units = [(each.key, each.value) for each in entries(collection)]
    else:
        units = [(each, each) for each in collection.children]
    if collection.flow:
        return [_removed_in_flow(collection, units, *run) for run in _runs(units, marked)]
    return [_removed_lines(stream, collection, units, *run) for run in _runs(units, marked)]


Unit = tuple["Node", "Node"]
"""The first and the last node of an entry or item."""


def _runs(units: Sequence[Unit], marked: set[int]) -> Iterator[tuple[int, int]]:
    """Yield the first index, and the one behind the last, of each run of marked units."""
    begin = 0
    for index in range(len(units) + 1):
        if index < len(units) and id(units[index][0]) in marked:
            continue
        if begin < index:
            yield begin, index
        begin = index + 1


def _removed_in_flow(collection: Node, units: Sequence[Unit], begin: int, end: int) -> Edit:
    if begin:
        return Edit(units[begin - 1][1].end, units[end - 1][1].end, "", collection.depth)
    behind = units[end][0].start if end < len(units) else units[-1][1].end
    return Edit(units[0][0].start, behind, "", collection.depth)


def _removed_lines(stream: Stream, collection: Node, units: Sequence[Unit], begin: int, end: int) -> Edit:
    first, last = units[begin][0], units[end - 1][1]
    start = stream.line_start(first.start)
    before = stream.text[start : first.start]
    if collection.kind == "mapping" and (before.strip() or not start) and end < len(units):
        # The first key, beside the dash of its item.
        return Edit(first.start, units[end][0].start, "", collection.depth)
    if before.strip(" -") or not start:
        raise InvalidManifest(f"line {stream.line_number(first.start)}: changed by hand; remove it by hand")
    return Edit(_end_of_line_above(stream, start), stream.line_end(last.end), "", collection.depth)


def _end_of_line_above(stream: Stream, line_start: int) -> int:
    return line_start - 1 - stream.text.startswith("\r\n", line_start - 2)


def _before(stream: Stream, sequence: Node) -> int:
    """Return the end of the line behind which lines before the first item are added: that of its key."""
    start = stream.line_start(sequence.inside)
    if stream.text[start : sequence.inside].strip() or not start:
        line = stream.line_number(sequence.inside)
        raise InvalidManifest(f"line {line}: a sequence in a sequence; write it on a line of its own")
    end = _end_of_line_above(stream, start)
    # Comments above the first item stay with it.
    while (above := stream.line_start(end)) and stream.text[above:end].strip()[:1] in ("", "#"):
        end = _end_of_line_above(stream, above)
    return end


def _slot(stream: Stream, collection: Node) -> int:
    """Return the end of the line behind which lines for a block collection are added.

    That of the last child, unless it is a block scalar that the text's end cuts: a line more would give it a break more.
    """
    mapping = collection.kind == "mapping"
    children = [each.value for each in entries(collection)] if mapping else collection.children
    for child in reversed(children):
        if not _is_cut(stream, child):
            return stream.line_end(child.end)
    raise InvalidManifest(
        f"line {stream.line_number(collection.start)}: the last line has no end; end it with a line break"
    )


def _is_cut(stream: Stream, node: Node) -> bool:
    while node.children:
        node = node.children[-1]
    return node.style in ("|", ">") and node.end == len(stream.text)


def _lines(stream: Stream, at: int, lines: Sequence[str], depth: int) -> Edit:
    ending = stream.break_near(at)
    return Edit(at, at, "".join(f"{ending}{line}" for line in lines), depth)


def _append_in_flow(stream: Stream, collection: Node, *written: str) -> Edit:
    last = collection.children[-1]
    unit = collection.children[-2] if collection.kind == "mapping" else last
    separator = _separator(stream, unit)
    return Edit(last.end, last.end, "".join(f",{separator}{each}" for each in written), collection.depth)


def _separator(stream: Stream, unit: Node) -> str:
    """Return a line break with indentation if `unit` begins its line, else a space."""
    start = stream.line_start(unit.start)
    before = stream.text[start : unit.start]
    return " " if before.strip() or not start else f"{stream.break_near(_end_of_line_above(stream, start))}{before}"


def _gap(stream: Stream, sequence: Node) -> str:
    """Return the spaces between a dash and its item, as in the last item."""
    for each in reversed(sequence.children):
        dash = stream.text.rfind("-", stream.line_start(each.start), each.start)
        if each.start and dash >= 0 and each.kind != "alias" and not stream.text[dash + 1 : each.start].strip(" "):
            return " " * max(1, each.start - dash - 1)
    return " "


def _flow(value: Value) -> str:
    """Return a value as JSON on one line, which is YAML too."""
    return json.dumps(value, ensure_ascii=False)


def block(value: Mapping[str, Value], column: int, style: Style) -> list[str]:
    """Return the lines of a mapping in block style, from `column` on."""
    lines: list[str] = []
    for key, below in value.items():
        head = f"{' ' * column}{plain(key)}:"
        if isinstance(below, dict) and below:
            lines += [head, *block(below, column + style.step, style)]
        elif isinstance(below, list) and below and not _is_short(below):
            lines.append(head)
            for each in below:
                lines += _item(each, column + style.dash, style)
        elif isinstance(below, str):
            lines.append(f"{head} {plain(below)}")
        else:
            lines.append(f"{head} {_flow(below)}")
    return lines


def _is_short(values: list[Value]) -> bool:
    return all(isinstance(each, str) for each in values) and len(_flow(values)) <= _LONG


def _item(value: Value, column: int, style: Style, gap: str = " ") -> list[str]:
    if not isinstance(value, dict):
        return [f"{' ' * column}-{gap}{plain(value) if isinstance(value, str) else _flow(value)}"]
    below = block(value, column + 1 + len(gap), style)
    return [f"{' ' * column}-{gap}{below[0].lstrip()}", *below[1:]]


def plain(text: str) -> str:
    """Return a scalar without quotes if it is a string in every YAML, else in JSON's quotes."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
