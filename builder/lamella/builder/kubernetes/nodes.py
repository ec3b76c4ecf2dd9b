"""The nodes of a YAML stream with their places in its text, as far as an edit of the text needs them.

ruamel.yaml parses; nothing is constructed, so that aliases stay aliases and no text is normalised.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from lamella.builder.errors import InvalidManifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Kind = Literal["mapping", "sequence", "scalar", "alias"]

_PROPERTIES = re.compile(r"(?:[&!]\S*\s+)*")
_COLON = re.compile(r"\s*:")
_DASH = re.compile(r"(?:\s|#[^\r\n]*)*-")
_HEADER = re.compile(r"[|>][-+0-9]*")
_BREAKS = re.compile(r"(?:\r\n|\n|\r)+\Z")
_LAST_BREAK = re.compile(r"(?:\r\n|\n|\r)\Z")
_BREAK = re.compile(r"\r\n|\n|\r")
_TEMPLATE = "{{"
_TEMPLATE_LINE = re.compile(r"(?:^|[:-])[ \t]*(\{\{)", re.MULTILINE)
_MERGE = "<<"
_LINE_WITH_TAB = re.compile(r"[^\r\n\t]*\t[^\r\n]*")
_INDENTATION = re.compile(r"[ \t\ufeff]*(?:[-?][ \t]+)*")
"""Of a line, with the dashes of items."""


@dataclass(slots=True, eq=False)
class Node:
    """A node where it is written. Nodes are compared by identity: an anchored one is the same by each of its aliases."""

    kind: Kind
    start: int
    end: int
    """Behind its last character; of a block collection, behind that of its last child."""
    inside: int
    """Of a flow collection, behind its bracket; of a block sequence, its first dash; else the content's start."""
    depth: int
    flow: bool = False
    value: str = ""
    """A scalar's value."""
    style: str = ""
    """A scalar's quotes, | or >; empty if it is plain."""
    children: list[Node] = field(default_factory=list)
    """Keys and values in turns, or items."""
    target: Node | None = None
    """Of an alias, the node that it stands for."""

    @property
    def content(self) -> Node:
        """The node itself, or the one that an alias stands for."""
        return self.target or self

    @property
    def is_null(self) -> bool:
        """Whether this is a plain scalar for null, or nothing at all."""
        return self.kind == "scalar" and not self.style and self.value in ("", "~", "null", "Null", "NULL")

    @property
    def is_empty(self) -> bool:
        """Whether this is null, or a collection without children."""
        return self.is_null or (self.kind in ("mapping", "sequence") and not self.children)


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping with its value, which may be an alias."""

    mapping: Node
    key: Node
    value: Node


@dataclass(frozen=True, slots=True)
class Stream:
    """A text and the roots of its documents."""

    text: str
    roots: tuple[Node, ...]

    def line_start(self, at: int) -> int:
        """Return the place of the first character of the line at `at`."""
        return max(self.text.rfind("\n", 0, at), self.text.rfind("\r", 0, at)) + 1

    def line_end(self, at: int) -> int:
        """Return the place behind the last character of the line at `at`, before its break."""
        found = _BREAK.search(self.text, at)
        return found.start() if found else len(self.text)

    def column(self, at: int) -> int:
        """Return the column of `at`; a byte order mark takes none."""
        start = self.line_start(at)
        return at - start - self.text.startswith("\ufeff", start, at)

    def break_near(self, at: int) -> str:
        """Return the line break at the end of the line at `at`, or the first of the text if it has none."""
        found = _BREAK.search(self.text, at) or _BREAK.search(self.text)
        return found[0] if found else "\n"

    def line_number(self, at: int) -> int:
        """Return the number of the line at `at`, from 1."""
        return len(_BREAK.findall(self.text, 0, at)) + 1


def parse(text: str, name: str) -> Stream:
    """Return the nodes of `text`, a stream of YAML or JSON documents. Raises `InvalidManifest`, with `name` in its message."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        events = list(YAML(typ="safe", pure=True).parse(_without_tabs(text)))
        roots = tuple(_compose(events, text, name))
    except MarkedYAMLError as error:
        if template := _TEMPLATE_LINE.search(text):
            raise _helm(name, Stream(text, ()).line_number(template.start(1))) from None
        mark = error.problem_mark or error.context_mark
        if mark and text.startswith("\t", mark.index):
            at = f"line {mark.line + 1}, column {mark.column + 1}"
            raise InvalidManifest(f"{name} {at}: a tab, where YAML allows spaces only; replace it") from None
        at = f" line {mark.line + 1}" if mark else ""
        raise InvalidManifest(f"{name}{at}: not YAML: {error.problem or error.context}; correct it") from None
    except YAMLError as error:
        raise InvalidManifest(f"{name}: not YAML: {' '.join(str(error).split())}; correct it") from None
    if not roots:
        kind = "has only comments" if text.strip("\ufeff \t\r\n") else "empty"
        raise InvalidManifest(f"{name}: {kind}; give a manifest with pods")
    return Stream(text, roots)


def _helm(name: str, line: int) -> InvalidManifest:
    return InvalidManifest(
        f"{name} line {line}: a Helm template, not YAML; render it first: helm template CHART | lamella inject -"
    )


def _without_tabs(text: str) -> str:
    """Return `text` with spaces for the tabs that JSON and YAML allow and ruamel.yaml refuses, at the same places.

    Values of scalars can change by it, which no edit writes. Source: YAML 1.2.2, 6.2 Separation Spaces; tabs after the
    dash of an item stay, since Kubernetes' own parser refuses them too.
    """
    if "\t" not in text:
        return text
    if text.lstrip("\ufeff \t\r\n").startswith(("{", "[")):
        with suppress(ValueError, RecursionError):
            # A tab in a string is not valid JSON, so each one is between tokens.
            json.loads(text.lstrip("\ufeff"))
            return text.replace("\t", " ")
    return _LINE_WITH_TAB.sub(_without_inner_tabs, text)


def _without_inner_tabs(found: re.Match[str]) -> str:
    line = found[0]
    indentation = _INDENTATION.match(line)
    inner = indentation.end() if indentation else 0
    return line[:inner] + line[inner:].replace("\t", " ")


def _compose(events: list[Any], text: str, name: str) -> Iterator[Node]:
    """Yield the root of each document. Without recursion, so that no nesting is too deep."""
    anchors: dict[str, Node] = {}
    stack: list[Node] = []
    for event in events:
        match type(event).__name__:
            case "DocumentStartEvent":
                anchors = {}
                continue
            case "MappingEndEvent" | "SequenceEndEvent":
                node = stack.pop()
                node.end = event.end_mark.index if node.flow else _last(node)
                if not stack:
                    yield node
                continue
            case "MappingStartEvent" | "SequenceStartEvent" | "ScalarEvent" | "AliasEvent":
                pass
            case _:
                continue
        node = _node(event, text, anchors, stack)
        if stack:
            parent = stack[-1]
            if parent.kind == "mapping" and len(parent.children) % 2 == 0 and node.flow and _is_template(node, text):
                raise _helm(name, Stream(text, ()).line_number(node.start))
            parent.children.append(node)
            if len(parent.children) == 1 and not parent.flow and parent.kind == "mapping":
                parent.inside = node.start
        if node.kind in ("mapping", "sequence"):
            stack.append(node)
        elif not stack:
            yield node


def _is_template(node: Node, text: str) -> bool:
    """Whether a mapping that is a key, which no manifest has, is Helm's `{{ … }}`."""
    return text.startswith(_TEMPLATE, node.start - 1) or text.startswith(_TEMPLATE, node.start)


def _last(node: Node) -> int:
    return node.children[-1].end if node.children else node.start


def _node(event: Any, text: str, anchors: dict[str, Node], stack: list[Node]) -> Node:
    kind = type(event).__name__
    start, end = event.start_mark.index, event.end_mark.index
    depth = len(stack)
    if kind == "AliasEvent":
        return Node("alias", start, end, start, depth, target=anchors.get(event.anchor))
    if kind == "ScalarEvent":
        node = _scalar(event, text, stack)
    elif kind == "MappingStartEvent":
        node = Node("mapping", start, end, end, depth, bool(event.flow_style))
    else:
        inside = end
        if not event.flow_style and not text.startswith("-", end):
            # The mark is behind the dash of a sequence that is indented as its key is.
            inside = end - 1
        node = Node("sequence", start, end, inside, depth, bool(event.flow_style))
    if event.anchor:
        anchors[event.anchor] = node
    return node


def _scalar(event: Any, text: str, stack: list[Node]) -> Node:
    start, end, style = event.start_mark.index, event.end_mark.index, event.style or ""
    if not style and not event.value and not text[start:end].strip():
        start = end = _place_of_nothing(text, stack, start)
    elif style in ("|", ">"):
        # Empty lines behind it belong to the value with +, and are nothing without it.
        header = _HEADER.search(text, start)
        breaks = _LAST_BREAK if header and "+" in header[0] else _BREAKS
        end = start + len(breaks.sub("", text[start:end]))
    properties = _PROPERTIES.match(text, start)
    inside = properties.end() if properties else start
    return Node("scalar", start, end, inside, len(stack), value=event.value, style=style)


def _place_of_nothing(text: str, stack: list[Node], mark: int) -> int:
    """Return the place behind the colon or dash of a value that is not written. ruamel.yaml's mark is that of the next token."""
    if not stack:
        return mark
    parent = stack[-1]
    if parent.kind == "mapping" and len(parent.children) % 2:
        found = _COLON.match(text, parent.children[-1].end)
    elif parent.kind == "sequence" and not parent.flow:
        found = _DASH.match(text, parent.children[-1].end if parent.children else parent.inside)
    else:
        found = None
    return found.end() if found else mark


def entries(mapping: Node) -> list[Entry]:
    """Return the entries of `mapping` as they are written, merges among them."""
    keys = mapping.children
    return [Entry(mapping, keys[index], keys[index + 1]) for index in range(0, len(keys) - 1, 2)]


def items(sequence: Node | None) -> list[Node]:
    """Return the items of `sequence`, aliases resolved; an empty list for null and for other nodes."""
    return [each.content for each in sequence.children] if sequence and sequence.kind == "sequence" else []


def entry(mapping: Node | None, key: str) -> Entry | None:
    """Return the entry of `key`, also one that a merge brings."""
    waiting, seen = [mapping], set[int]()
    while waiting:
        node = waiting.pop(0)
        if node is None or node.kind != "mapping" or id(node) in seen:
            continue
        seen.add(id(node))
        own = entries(node)
        for each in own:
            if each.key.kind == "scalar" and each.key.value == key:
                return each
        merges = [each.value.content for each in own if each.key.value == _MERGE and not each.key.style]
        waiting += [node for merged in merges for node in (items(merged) if merged.kind == "sequence" else [merged])]
    return None


def value(mapping: Node | None, *path: str) -> Node | None:
    """Return the node at `path` below `mapping`, aliases resolved; None without it."""
    node = mapping
    for key in path:
        found = entry(node, key)
        if not found:
            return None
        node = found.value.content
    return node


def text_of(mapping: Node | None, *path: str) -> str:
    """Return the scalar at `path`; an empty string without it, or if it is null."""
    node = value(mapping, *path)
    return node.value if node and node.kind == "scalar" and not node.is_null else ""


def scalars(mapping: Node | None) -> Mapping[str, str]:
    """Return the entries of `mapping` whose values are scalars."""
    if mapping is None or mapping.kind != "mapping":
        return {}
    return {
        each.key.value: each.value.content.value
        for each in entries(mapping)
        if each.value.content.kind == "scalar" and not each.value.content.is_null
    }
