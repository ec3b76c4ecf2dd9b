"""URLs as they may be shown and shipped: without what only their owner may know."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_CONDA_TOKEN = re.compile(r"/t/[^/]*(?=/|$)")
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def without_credentials(url: str) -> str:
    """`url` without user, password, conda's `/t/<token>`, query and fragment: each has been seen to hold a secret.

    The user `git` stays: it is an ssh server's door, not a secret, and the URL does not work without it. A URL may lack its
    scheme, as conda's channels do. What can't be read becomes nothing.
    """
    bare = "://" not in url
    try:
        parts = urlsplit(f"//{url}" if bare and not url.startswith("/") else url)
    except ValueError:
        return ""
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"git@{host}" if at and user == "git" else host
    cleaned = urlunsplit((parts.scheme, netloc, _CONDA_TOKEN.sub("", parts.path), "", ""))
    return cleaned.removeprefix("//") if bare else cleaned


def text_without_credentials(text: str) -> str:
    """`text`, such as a requirement, with each URL in it as `without_credentials` has it."""
    return _URL.sub(lambda match: without_credentials(match[0]), text) if "://" in text else text
