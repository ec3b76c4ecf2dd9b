from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lamella.comparison import Comparison, ComparisonError, document, read
from support.comparisons import comparison
from support.schemas import problems

SCHEMA = Path(__file__).parents[2] / "docs/reference/schemas/compare.json"


def written(**changes: Any) -> dict[str, Any]:
    """A comparison's document as a file has it, with other fields."""
    found: dict[str, Any] = json.loads(json.dumps(document(comparison(rounds=1))))
    return found | changes


def test_a_document_reads_back_as_the_same_comparison() -> None:
    assert read(written()) == comparison(rounds=1)


def test_a_document_has_every_field_and_fits_its_schema() -> None:
    assert set(written()) == {"version", *(field.name for field in fields(Comparison))}
    assert problems(written(), SCHEMA) == []


def test_a_comparison_without_runs_or_with_an_unlimited_network_reads_back() -> None:
    empty = comparison(rounds=1)
    empty = replace(
        empty, runs=(), stories=(), workflows=(), complete=False, network=replace(empty.network, megabits=None)
    )
    assert read(json.loads(json.dumps(document(empty)))) == empty


def test_fields_of_a_later_version_are_ignored() -> None:
    assert read(written(colour="blue")) == comparison(rounds=1)


@pytest.mark.parametrize("value", [None, [], "text", {}, {"version": 2}, {"version": "1"}, {"version": None}])
def test_a_document_of_another_kind_or_version_is_refused(value: object) -> None:
    with pytest.raises(ComparisonError, match="not a comparison of version 1; write one with `lamella compare --json`"):
        read(value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seconds": "12"}, "seconds: not a number from 0"),
        ({"seconds": -1}, "seconds: not a number from 0"),
        ({"seconds": float("nan")}, "seconds: not a number from 0"),
        ({"seconds": float("inf")}, "seconds: not a number from 0"),
        ({"rounds": 1.5}, "rounds: not a whole number from 0"),
        ({"rounds": True}, "rounds: not a whole number from 0"),
        ({"complete": 1}, "complete: not true or false"),
        ({"lamella": None}, "lamella: not a string"),
        ({"environment": []}, "environment: not an object"),
        ({"runs": {}}, "runs: not a list"),
        ({"runs": [None]}, r"runs\[0\]: not an object"),
        ({"runs": [{"workflow": "lamella"}]}, r"runs\[0\].story is missing"),
        ({"network": {"kind": "carrier pigeon"}}, "network.kind: not 'loopback' or 'namespaces'"),
        ({"workflows": []}, r"runs\[0\]: 'lamella', 'new': not among its workflows and stories"),
        ({"stories": [*written()["stories"], written()["stories"][0]]}, "two stories have the same name"),
    ],
)
def test_an_invalid_field_is_named_in_one_sentence(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ComparisonError, match=problem) as caught:
        read(written(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [field.name for field in fields(Comparison)])
def test_a_missing_field_is_named(name: str) -> None:
    found = written()
    del found[name]
    with pytest.raises(ComparisonError, match=f"^result.json: {name} is missing; write the file with `lamella compare"):
        read(found)
