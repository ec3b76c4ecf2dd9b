"""Remove credentials from URLs before they are shown or shipped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable

_CONDA_TOKEN = re.compile(r"/t/[^/]*(?=/|$)")
_URL = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>]+")


def without_credentials(url: str) -> str:
    """Remove user, password, conda's `/t/<token>`, query and fragment, each of which may hold a secret.

    The user `git` stays: ssh servers need it, and it is not secret. The scheme may be missing, as in
    conda's channels. An invalid URL becomes empty.
    """
    return _cleaned(url, lambda path: _CONDA_TOKEN.sub("", path))


def file_without_credentials(url: str) -> str:
    """Remove the same from the URL of a package's file, but keep a `/t/<name>` that the file's name begins with.

    An index that sorts packages by their first letter has such folders. A path of this machine stays as it is.
    """
    return _cleaned(url, (lambda path: path) if url.startswith("file://") else _without_token)


def _without_token(path: str) -> str:
    filename = _folded(path.rpartition("/")[2])
    return _CONDA_TOKEN.sub(lambda found: found[0] if filename.startswith(_folded(found[0][3:])) else "", path)


def _folded(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _cleaned(url: str, clean_path: Callable[[str], str]) -> str:
    bare = "://" not in url
    try:
        parts = urlsplit(f"//{url}" if bare and not url.startswith("/") else url)
    except ValueError:
        return ""
    user, at, host = parts.netloc.rpartition("@")
    netloc = f"git@{host}" if at and user == "git" else host
    cleaned = urlunsplit((parts.scheme, netloc, clean_path(parts.path), "", ""))
    return cleaned.removeprefix("//") if bare else cleaned


def text_without_credentials(text: str) -> str:
    """Remove credentials from each URL in `text`, such as a requirement."""
    return _URL.sub(lambda match: without_credentials(match[0]), text) if "://" in text else text
