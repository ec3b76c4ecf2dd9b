"""Where a file holds one of the environment's prefixes. One rule, for the scan that finds and the packer that rewrites.

A match ends where a path's component ends: `/srv/env` is in `/srv/env/lib` and in `/srv/env"`, not in `/srv/env2` or
`/srv/env.old`. It begins where a path begins: not in `/mnt/srv/env`, but in `-L/srv/env/lib`, in `file:///srv/env` and, since CPython's own
sysconfig has such, in `./srv/env`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGIN = 4
"""Bytes around a match that decide whether it is one."""

_BEFORE = rb"(?:(?<![\w.~+\-/\x80-\xff])|(?<=-[A-Za-z])|(?<=://)|(?<=[^\w.~+\-/\x80-\xff]\.))"
_AFTER = rb"(?![\w.~+@%\-\x80-\xff])"


@lru_cache(maxsize=64)
def pattern(prefixes: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """Matches any of `prefixes`, the longest first, as whole paths."""
    longest_first = sorted(prefixes, key=lambda prefix: (-len(prefix), prefix))
    return re.compile(_BEFORE + b"(?:" + b"|".join(map(re.escape, longest_first)) + b")" + _AFTER)


def shortest(prefixes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Those of `prefixes` that begin with no other: where none of them is, none of `prefixes` is."""
    found: list[bytes] = []
    for prefix in sorted(prefixes, key=len):
        if not any(prefix.startswith(other) for other in found):
            found.append(prefix)
    return tuple(found)
