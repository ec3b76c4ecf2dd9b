"""Remove credentials from URLs before they are shown or shipped."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_CONDA_TOKEN = re.compile(r"/t/[^/]*(?=/|$)")
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def without_credentials(url: str) -> str:
    """Remove user, password, conda's `/t/<token>`, query and fragment, each of which may hold a secret.

    The user `git` stays: ssh servers need it, and it is not secret. The scheme may be missing, as in
    conda's channels. An invalid URL becomes empty.
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
    """Remove credentials from each URL in `text`, such as a requirement."""
    return _URL.sub(lambda match: without_credentials(match[0]), text) if "://" in text else text
