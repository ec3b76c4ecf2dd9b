"""Lists that a registry answers in pages: tags and referrers.

A page names the next one in a Link header (RFC 8288). Only its path and query count, at the
registry itself, as skopeo reads it: a registry behind a proxy may write another scheme or host.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urljoin

from lamella.layers.errors import InvalidContent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lamella.layers.registry.response import Response

MAX_PAGES = 1000
MAX_BYTES = 64 << 20
"""Bytes of all pages together: a million tags of 60 characters."""

_VALUE = r'"(?:[^"\\]|\\.)*"|[^\s",;]*'
_LINK = re.compile(rf"<([^>]*)>((?:\s*;\s*[^\s=;,]+(?:\s*=\s*(?:{_VALUE}))?)*)")
_PARAMETER = re.compile(rf";\s*([^\s=;,]+)\s*=\s*({_VALUE})")


def pages(read: Callable[[str], tuple[Response, bytes]], target: str, what: str) -> Iterator[tuple[Response, bytes]]:
    """Yield each page as its response and its body, from `target` on: a path with its query.

    `read` gets a page from the registry. Raises `InvalidContent` for a list that repeats a page or
    does not end.
    """
    seen: set[str] = set()
    size = 0
    while target:
        if target in seen or len(seen) == MAX_PAGES or size > MAX_BYTES:
            problem = "repeats a page" if target in seen else f"has no end after {len(seen)} pages and {size} bytes"
            raise InvalidContent(f"{what}: the registry's list {problem}; report this to the registry's operator")
        seen.add(target)
        response, content = read(target)
        size += len(content)
        yield response, content
        target = next_target(response.headers("Link"), target, what)


def next_target(headers: Iterable[str], here: str, what: str) -> str:
    """Return the target of the page after `here`, or an empty string. Raises `InvalidContent`."""
    for header in headers:
        for location, parameters in _LINK.findall(header):
            for name, value in _PARAMETER.findall(parameters):
                relations = re.sub(r"\\(.)", r"\1", value.strip('"')).lower().split()
                if name.lower() == "rel" and "next" in relations:
                    return _path_of(location, here, what)
    return ""


def _path_of(location: str, here: str, what: str) -> str:
    try:
        joined = urljoin(f"http://registry{here}", location)
    except ValueError:
        raise InvalidContent(f"{what}: the registry's list continues at an invalid URL; check for a proxy") from None
    path = re.sub(r"^[^:/?#]+://[^/?#]*", "", joined).partition("#")[0]
    return path if path.startswith("/") else f"/{path}"
