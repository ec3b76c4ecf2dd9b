"""JSON that others wrote, read strictly: one reading of it, and values that the rest of the program can use.

Refused are documents that two readers understand differently (a key twice, a key in another case, which Go's decoder
takes for the same), and values that no file name, message or other document can hold (half of a surrogate pair, NUL, a
number of thousands of digits, NaN).
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from lamella.layers.errors import InvalidContent
from lamella.layers.oci.values import MAX_INT, clean_text
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

_Value = TypeVar("_Value")

_MAX_DEPTH = 16
"""Levels of lists and objects in a part of a document that is kept as it is."""
_NAMES = frozenset(
    {
        "Cmd", "Entrypoint", "Env", "Labels", "User", "WorkingDir", "annotations", "architecture", "artifactType", "author",
        "config", "created", "diff_ids", "digest", "history", "layers", "manifests", "mediaType", "os", "os.features",
        "os.version", "platform", "rootfs", "size", "subject", "urls", "variant",
    }
)  # fmt: skip
_FOLDED = {name.casefold(): name for name in _NAMES}
_MEDIA_TYPE = re.compile(r"[!-~]{1,127}/[!-~][ -~]{0,126}")


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object in `content`; `InvalidContent` names `what` it should be."""
    try:
        text = content.decode()
        value = json.loads(
            text, object_pairs_hook=_once, parse_int=_integer, parse_float=_number, parse_constant=_number
        )
    except (ValueError, RecursionError):
        raise InvalidContent(f"{what} is not JSON: it begins with {escaped(content, 60)}") from None
    # Every character that must not be in a text can only be spelled by an escape: the rest is UTF-8, which was decoded.
    if "\\u" in text:
        _check_texts(value, what)
    return fields(value, what)


def fields(value: object, what: str) -> dict[str, Any]:
    """Return `value` if it is an object whose keys every reader takes for the same."""
    if not isinstance(value, dict):
        raise InvalidContent(f"{what} is not a JSON object")
    for key in value:
        if key not in _NAMES and (meant := _FOLDED.get(key.casefold())):
            raise InvalidContent(f"{what} has the key {escaped(key, 40)} for {meant}: refused as ambiguous")
    return value


def list_of(document: Mapping[str, Any], key: str) -> list[Any]:
    """Return the list under `key`."""
    value = document.get(key)
    if not isinstance(value, list):
        raise InvalidContent(f"{key!r} is missing or not a list")
    return value


def text_of(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return the string under `key`, or `default` if it is absent or null."""
    value = document.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise InvalidContent(f"{key!r} is missing or not a string")
    return value


def media_type_of(document: Mapping[str, Any], default: str | None = None) -> str:
    """Return the media type; requests carry it in their headers. Source: RFC 6838, section 4.2."""
    value = text_of(document, "mediaType", default)
    if not _MEDIA_TYPE.fullmatch(value):
        raise InvalidContent(f"{escaped(value, 100)}: not a media type")
    return value


def texts_of(document: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return the list of strings under `key`, empty if it is absent or null."""
    value = document.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InvalidContent(f"{key!r} is not a list of strings")
    return tuple(value)


def annotations_of(document: Mapping[str, Any], key: str = "annotations") -> dict[str, str]:
    """Return the object of strings under `key`, empty if it is absent or null."""
    value = document.get(key)
    if value is None:
        return {}
    # By type, as JSON has no subclasses of str: hundreds of layers have a few of these each.
    if not isinstance(value, dict) or not {str}.issuperset(map(type, value.values())):
        raise InvalidContent(f"{key!r} is not an object of strings")
    return value


def shallow(value: _Value, what: str) -> _Value:
    """Return `value` unless it is nested so deeply that writing it again could fail."""
    level: list[object] = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise InvalidContent(f"{what} is nested more than {_MAX_DEPTH} levels deep")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    # Of two values under one key, one reader takes the first and another the last.
    if len(document) != len(pairs):
        keys = sorted(key for key, _ in pairs)
        twice = next(one for one, other in pairwise(keys) if one == other)
        raise InvalidContent(f"a document has {escaped(twice, 100)} twice in one object: refused as ambiguous")
    return document


def _integer(text: str) -> int:
    # int() takes quadratic time for long ones, or refuses them, by the version of Python.
    if len(text) > len(str(-MAX_INT)):
        raise ValueError("a number of too many digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    # Not JSON: NaN, Infinity; and what Python makes an infinity of, such as 1e999.
    if number - number != 0:
        raise ValueError("not a finite number")
    return number


def _check_texts(value: object, what: str) -> None:
    pending = [value]
    while pending:
        each = pending.pop()
        if isinstance(each, dict):
            pending += each
            pending += each.values()
        elif isinstance(each, list):
            pending += each
        elif isinstance(each, str) and clean_text(each, len(each) * 4) is None:
            raise InvalidContent(f"{what} has a text that is not UTF-8 or holds a NUL: {escaped(each, 60)}")
