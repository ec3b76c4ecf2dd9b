"""Parsed JSON as frozen dataclasses, checked against the types of their fields."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lamella.comparison.errors import ComparisonError

Value = TypeVar("Value")
_NAMES = {str: "a string", int: "a whole number from 0", float: "a number from 0", bool: "true or false"}


def decode(kind: type[Value], value: object) -> Value:
    """Return parsed JSON as the dataclass `kind`. Unknown fields are ignored; numbers are finite and not negative.

    Raises:
        ComparisonError: a missing field, or one of another type.
    """
    found: Value = _decoded(kind, value, "")
    return found


def _decoded(kind: Any, value: object, at: str) -> Any:
    """Return `value` as `kind`: a dataclass, tuple, mapping, literal, optional or plain type."""
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _record(kind, value, at)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise _invalid(at, "a list")
        return tuple(_decoded(inner[0], each, f"{at}[{number}]") for number, each in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _invalid(at, "an object")
        return {str(name): _decoded(inner[1], each, f"{at}.{name}") for name, each in value.items()}
    if origin is Literal:
        if value not in inner:
            raise _invalid(at, " or ".join(map(repr, inner)))
        return value
    if origin in (Union, types.UnionType):
        return None if value is None else _decoded(inner[0], value, at)
    return _plain(kind, value, at)


def _record(kind: Any, value: object, at: str) -> Any:
    if not isinstance(value, Mapping):
        raise _invalid(at, "an object")
    hints = get_type_hints(kind)
    arguments = {}
    for field in fields(kind):
        place = f"{at}.{field.name}".removeprefix(".")
        if field.name not in value:
            raise ComparisonError(f"result.json: {place} is missing; write the file with `lamella compare --json`")
        arguments[field.name] = _decoded(hints[field.name], value[field.name], place)
    return kind(**arguments)


def _plain(kind: type, value: object, at: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise _invalid(at, _NAMES[kind])
    if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
        raise _invalid(at, _NAMES[kind])
    return value


def _invalid(at: str, expected: str) -> ComparisonError:
    return ComparisonError(
        f"result.json: {at or 'document'}: not {expected}; write the file with `lamella compare --json`"
    )
