"""Find the environment's prefixes in a file. One rule, for the scan that finds and the packer that rewrites.

A match ends at the end of a path component: `/srv/env` matches in `/srv/env/lib` and `/srv/env"`, not
in `/srv/env2` or `/srv/env.old`. It begins at the start of a path: not in `/mnt/srv/env`, but in
`-L/srv/env/lib`, `file:///srv/env` and `./srv/env`, which CPython's own sysconfig contains.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGIN = 4
"""Bytes around a match that decide whether it counts."""

# The prefix stands in front of the check of the bytes before it: re searches for literal text, here a tenth of the time.
_BEFORE = rb"%b(?:(?<![\w.~+\-/\x80-\xff]%b)|(?<=-[A-Za-z]%b)|(?<=://%b)|(?<=[^\w.~+\-/\x80-\xff]\.%b))"
_AFTER = rb"(?![\w.~+@%\-\x80-\xff])"


@lru_cache(maxsize=64)
def pattern(prefixes: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Pattern for any of `prefixes`, the longest first, as whole paths."""
    longest_first = sorted(prefixes, key=lambda prefix: (-len(prefix), prefix))
    whole = b"|".join(_BEFORE % (5 * (re.escape(prefix),)) for prefix in longest_first)
    return re.compile(b"(?:" + whole + b")" + _AFTER)


def shortest(prefixes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those of `prefixes` that do not begin with another: without any of them, none of `prefixes` is present."""
    found: list[bytes] = []
    for prefix in sorted(prefixes, key=len):
        if not any(prefix.startswith(other) for other in found):
            found.append(prefix)
    return tuple(found)
