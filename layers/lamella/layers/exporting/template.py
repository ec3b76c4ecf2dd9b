"""Fill in the texts of scripts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def filled(text: str, parts: Mapping[str, str]) -> str:
    """Replace each `@NAME@` of `text` once: a value may itself contain such a name."""
    return re.sub("@([A-Z]+)@", lambda found: parts[found[1]], text)
