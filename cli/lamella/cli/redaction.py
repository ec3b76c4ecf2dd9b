"""Hide credentials in text for people and logs."""

from __future__ import annotations

import re

_USER = re.compile(r"\b([a-z]+:/{1,2})[^/@\s]+@", re.IGNORECASE)


def without_user(text: str) -> str:
    """Return `text` without user and password of its URLs. No message should hold them; this is the last gate."""
    return _USER.sub(r"\1***@", text) if "@" in text else text
