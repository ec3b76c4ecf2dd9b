"""Numbers and strings that others wrote: bounded, and such that a file name, a document or a message can hold them.

Annotations and documents come from anybody who may push. Every number and name in them is read by these functions.
"""

from __future__ import annotations

import re

MAX_INT = (1 << 63) - 1
"""The largest size that a file, a Go client or a sum of two in C can have."""

_MAX_PREFIX = 1024
_MAX_PARTS = 32
# Without white space and colons: it stands in shebang lines and in PATH.
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|\Z))[^/\0\s:]{1,255})+")
_DIGITS = len(str(MAX_INT))


def bounded_int(value: object, most: int = MAX_INT) -> int | None:
    """Return a number of a JSON document if it is whole and from 0 to `most`, else None."""
    # bool is an int to Python and not to JSON.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    return None


def bounded_decimal(text: object, most: int = MAX_INT) -> int | None:
    """Return the number in `text` if it is a string of ASCII digits and from 0 to `most`, else None."""
    # int() takes signs, spaces, underscores and digits of every script, and raises ValueError above 4,300 digits.
    if not isinstance(text, str) or not text.isascii() or not text.isdecimal() or len(text) > _DIGITS:
        return None
    return bounded_int(int(text), most)


def clean_text(value: object, most: int = 4096) -> str | None:
    """Return `value` if it is a string of at most `most` bytes of UTF-8 without a NUL, else None.

    JSON's escapes can spell half of a surrogate pair, which no file name, request or terminal can hold.
    """
    if not isinstance(value, str) or len(value) > most or "\0" in value:
        return None
    try:
        return value if len(value.encode()) <= most else None
    except UnicodeEncodeError:
        return None


def is_image_prefix(text: str) -> bool:
    """Return whether an environment can have `text` as its image prefix: an absolute path in its one spelling."""
    return (
        len(text) <= _MAX_PREFIX
        and text.count("/") <= _MAX_PARTS
        and text.isprintable()
        and bool(_PREFIX.fullmatch(text))
    )
