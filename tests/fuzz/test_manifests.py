"""Manifests written in any style: an environment is added and taken out again without a trace."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamella.builder import InjectOptions, inject, remove_environment
from support.manifests import differences, load, semantic_problems

pytestmark = pytest.mark.slow

REFERENCE = f"registry.example.com/team/envs:v1@sha256:{'a' * 64}"
EMPTY: st.SearchStrategy[Any] = st.sampled_from([None, []])
NAMES = st.sampled_from(["main", "side", "a-b"])
SCALARS = st.sampled_from(
    ["x", "", "a: b", "# no", "yes", "1.10", "two\nlines\n", "end\n\n", "ü\t", 1, True, None, " lead", "$(A)"]
)
VARIABLES = st.lists(
    st.builds(lambda name, value: {"name": name, "value": str(value)}, st.sampled_from(["A", "B", "PATH"]), SCALARS),
    max_size=3,
    unique_by=lambda each: each["name"],
)


@st.composite
def containers(draw: st.DrawFn) -> dict[str, Any]:
    """A container with odd neighbours, and lists that are missing, empty or not."""
    made: dict[str, Any] = {"name": draw(NAMES), "image": "debian"}
    for key, values in (
        ("env", st.one_of(EMPTY, VARIABLES)),
        ("volumeMounts", st.one_of(EMPTY, st.just([{"name": "data", "mountPath": "/data"}]))),
        ("args", st.lists(SCALARS, max_size=2)),
    ):
        if draw(st.booleans()):
            made[key] = draw(values)
    keys = draw(st.permutations(sorted(made)))
    return {key: made[key] for key in keys}


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A pod, with its keys in any order."""
    spec: dict[str, Any] = {"containers": draw(st.lists(containers(), min_size=1, unique_by=lambda each: each["name"]))}
    for key, values in (
        ("volumes", st.one_of(EMPTY, st.just([{"name": "data", "emptyDir": {}}]))),
        ("initContainers", st.one_of(EMPTY, st.just([{"name": "first", "image": "x"}]))),
        ("nodeSelector", st.one_of(st.just({}), st.none(), st.just({"a": "b"}))),
        ("hostname", SCALARS),
    ):
        if draw(st.booleans()):
            spec[key] = draw(values)
    metadata: dict[str, Any] = {"name": "train"}
    if draw(st.booleans()):
        metadata["annotations"] = draw(st.one_of(st.just({}), st.none(), st.just({"a": "b"})))
    keys = draw(st.permutations(["apiVersion", "kind", "metadata", "spec"]))
    whole = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return {key: whole[key] for key in keys}


class Writer:
    """Writes a document, with the styles that are drawn."""

    def __init__(self, data: st.DataObject) -> None:
        self.draw = data.draw

    def document(self, value: dict[str, Any]) -> str:
        lines = self.mapping(value, 0)
        # Without a break at the end, a block scalar there could not get a line behind it.
        return "\n".join(lines) + "\n" * self.draw(st.integers(int("|" in lines[-2:][0]), 2))

    def mapping(self, value: dict[str, Any], column: int) -> list[str]:
        lines = []
        for key, below in value.items():
            lines += self.noise(column)
            head = f"{' ' * column}{self.draw(st.sampled_from([key, json.dumps(key)]))}:"
            lines += self.value(head, below, column)
        return lines

    def value(self, head: str, value: Any, column: int) -> list[str]:
        if value is None:
            return [head + self.draw(st.sampled_from(["", " ~", " null", " # none"]))]
        if isinstance(value, dict | list) and (not value or self.draw(st.integers(0, 3)) == 0):
            return [f"{head} {json.dumps(value, ensure_ascii=False)}{self.comment()}"]
        if isinstance(value, dict):
            return [head + self.comment(), *self.mapping(value, column + self.draw(st.integers(1, 4)))]
        if isinstance(value, list):
            return [head + self.comment(), *self.sequence(value, column + self.draw(st.integers(0, 4)))]
        return self.scalar(head, value, column)

    def sequence(self, value: list[Any], column: int) -> list[str]:
        lines = []
        for each in value:
            lines += self.noise(column)
            gap = " " * self.draw(st.integers(1, 3))
            dash = f"{' ' * column}-{gap}"
            if isinstance(each, dict) and each and self.draw(st.integers(0, 3)):
                # Without a comment above its first key, which begins on the line of the dash.
                first, *rest = self.mapping(each, len(dash))
                while first.strip().startswith("#") or not first.strip():
                    first, *rest = rest
                lines += [dash + first.lstrip(), *rest]
            elif isinstance(each, dict | list):
                lines.append(dash + json.dumps(each, ensure_ascii=False))
            else:
                lines += self.scalar(dash.rstrip(), each, column)
        return lines

    def scalar(self, head: str, value: Any, column: int) -> list[str]:
        if isinstance(value, str) and value.strip() == value.rstrip("\n") != "" and self.draw(st.booleans()):
            mark = "+" if value.endswith("\n\n") else "" if value.endswith("\n") else "-"
            inner = " " * (column + self.draw(st.integers(1, 3)))
            return (
                [f"{head} |{mark}", *(f"{inner}{line}" if line else "" for line in value[:-1].split("\n"))]
                if (value.endswith("\n"))
                else [f"{head} |{mark}", *(f"{inner}{line}" for line in value.split("\n"))]
            )
        return [f"{head} {json.dumps(value, ensure_ascii=False)}{self.comment()}"]

    def comment(self) -> str:
        return self.draw(st.sampled_from(["", "", "", "  # why: {not} [this]", " "]))

    def noise(self, column: int) -> list[str]:
        return self.draw(st.sampled_from([[], [], [], [""], [f"{' ' * column}# - a: b"], ["# at the margin"]]))


@given(data=st.data(), document=documents(), method=st.sampled_from(["init", "image-volume", "host"]))
def test_an_environment_leaves_no_trace(data: st.DataObject, document: dict[str, Any], method: Any) -> None:
    text = Writer(data).document(document)
    text = text.replace("\n", data.draw(st.sampled_from(["\n", "\r\n"])))
    assert load(text) == [document]
    options = InjectOptions(REFERENCE, method=method, image="node", architectures=("amd64",))

    written = inject(text, options).text

    assert remove_environment(written).text == text
    assert inject(written, options).text == written
    assert semantic_problems(written) == semantic_problems(text)
    (after,) = load(written)
    for path, old, new in differences(document, after):
        lengthened = isinstance(old, str) and new in (f"/opt/env/bin:{old}", "/opt/env/bin")
        assert old in (None, [], {}) or lengthened, (path, old, new, written)
