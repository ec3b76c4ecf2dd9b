"""Documents and their JSON schemas."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from jsonschema import Draft202012Validator

if TYPE_CHECKING:
    from pathlib import Path


def problems(document: object, schema: Path) -> list[str]:
    """Objections of the schema in the file `schema`."""
    validator = Draft202012Validator(json.loads(schema.read_text()))
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(document)]


def check_schema(schema: Path) -> None:
    """Fail if the file `schema` is not a valid schema."""
    Draft202012Validator.check_schema(json.loads(schema.read_text()))
