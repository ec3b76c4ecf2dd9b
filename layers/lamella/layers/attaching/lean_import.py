"""Import jsonschema without the grammar of addresses that it loads if it is installed.

Jupyter brings that grammar, rfc3987-syntax, which takes a second to load. oras imports jsonschema,
and checks no addresses with it.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSONSCHEMA, _GRAMMAR = "jsonschema", "rfc3987_syntax"


@contextlib.contextmanager
def without_grammar() -> Iterator[None]:
    """Let modules that import jsonschema in the block share a copy of it without the grammar.

    Later imports get another copy, with the grammar. One of them that is imported already is used.
    """
    if _JSONSCHEMA in sys.modules or _GRAMMAR in sys.modules:
        yield
        return
    sys.modules[_GRAMMAR] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_GRAMMAR]
        for name in [name for name in sys.modules if name.partition(".")[0] == _JSONSCHEMA]:
            del sys.modules[name]
