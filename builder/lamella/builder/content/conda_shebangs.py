"""Restore the first line of a conda package's script that its installer had to shorten.

`#!PREFIX/bin/perl -w` is too long for the kernel at a long prefix, and invalid at one with a space: there conda,
mamba and rattler write `#!/usr/bin/env perl -w`. The author of the package can have written that too. The
record has the hash of the file in the package, which decides. Scripts for Python are `scripts`' task.
Source: conda's `replace_long_shebang`, rattler's `replace_shebang`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, NamedTuple

from lamella.builder.content.scripts import LONGEST_SHEBANG

if TYPE_CHECKING:
    from collections.abc import Sequence

_BY_ENV = re.compile(rb"#!/usr/bin/env (?P<name>[^\s/]+)(?P<args>[^\r\n]*)")
_LONGEST_REST = 64
"""Bytes of a first line besides the prefix; longer ones are not restored. Spares most environments a look."""


class Original(NamedTuple):
    """A file as it is in its package."""

    placeholder: bytes
    """Prefix that the file names there."""
    sha256: str


def can_shorten(prefixes: Sequence[bytes]) -> bool:
    """Whether an installer shortens first lines that name one of `prefixes`."""
    return any(len(prefix) > LONGEST_SHEBANG - _LONGEST_REST or re.search(rb"\s", prefix) for prefix in prefixes)


def originals(record: bytes) -> dict[str, Original]:
    """Return the text files with a prefix that a conda-meta record lists, by path; none for a damaged record."""
    try:
        listed = json.loads(record)["paths_data"]["paths"]
        return {
            str(item["_path"]): Original(str(item["prefix_placeholder"]).encode(), str(item["sha256"]))
            for item in listed
            if item.get("prefix_placeholder") and item.get("file_mode") == "text" and item.get("sha256")
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def restored(content: bytes, prefixes: Sequence[bytes], original: Original) -> bytes | None:
    """Return `content` with its first line as it would be at a short prefix; None if it was not shortened."""
    first = _BY_ENV.match(content)
    if not first:
        return None
    rest = content[first.end() :]
    for prefix in prefixes:
        there = rest.replace(prefix, original.placeholder)
        for start in (b"#!", b"#! "):
            end = b"/bin/" + first["name"] + first["args"]
            if hashlib.sha256(start + original.placeholder + end + there).hexdigest() == original.sha256:
                return start + prefix + end + rest
    return None
