"""Hide credentials in text for people and logs."""

from __future__ import annotations

import re

# `oci:/folder:tag@digest` names a folder, and no user.
_USER = re.compile(r"\b(?!oci:/[^/])([a-z]+:/{1,2})[^/@\s]+@", re.IGNORECASE)


def without_user(text: str) -> str:
    """Return `text` without user and password of its URLs. No message should hold them; this is the last gate."""
    return _USER.sub(r"\1***@", text) if "@" in text else text
