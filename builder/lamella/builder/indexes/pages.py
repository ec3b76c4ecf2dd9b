"""The files that an index has of one package. Source: PyPA specifications, "Simple repository API" (PEP 503, 592, 691)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from lamella.builder.files.small_file import read_small
from lamella.builder.indexes.client import IndexUnusable
from lamella.builder.indexes.model import with_query
from lamella.layers.text import escaped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamella.builder.indexes.client import IndexClient
    from lamella.builder.indexes.model import PackageIndex
    from lamella.layers.registry.response import Response

_MOST = 128 << 20
"""Bytes of a page: the longest ones on public indexes have 20 MB."""
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"
_SHA256 = re.compile(r"[0-9a-f]{64}")
SDISTS = (".tar.gz", ".zip", ".tar.bz2", ".tgz", ".tar.xz")


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A wheel or source distribution on an index."""

    filename: str
    url: str
    sha256: str = ""
    size: int = 0
    yanked: bool = False
    requires_python: str = ""

    @property
    def is_wheel(self) -> bool:
        """Whether it is a wheel."""
        return self.filename.endswith(".whl")


def project_files(client: IndexClient, index: PackageIndex, name: str) -> tuple[IndexFile, ...] | None:
    """Return the files of the package `name` (normalised); None if the index has no such package.

    Raises `IndexUnusable`.
    """
    if index.url.startswith("file://"):
        return _local(f"{index.url}/{name}/")
    what = f"index {index.url}: package {name}"
    url = with_query(index, f"/{name}/")
    return client.get(url, what, lambda response: _read(response, url, what), accept=_ACCEPT, index=index.url)


def _read(response: Response, url: str, what: str) -> tuple[IndexFile, ...]:
    base = response.address.url or url
    is_json = response.content_type in (_JSON, "application/json")
    content = response.body(_MOST)
    try:
        files = _of_json(json.loads(content), base) if is_json else _of_html(content, base)
        local = next((file.filename for file in files if urlsplit(file.url).scheme == "file"), "")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise IndexUnusable(f"{what}: not a page of an index; check its URL, and for a proxy in between") from None
    if local:
        raise IndexUnusable(
            f"{what}: its page leads to a file of this machine, {escaped(local, 100)}; report it to the index's operator"
        )
    return files


def _of_json(document: Mapping[str, object], base: str) -> tuple[IndexFile, ...]:
    files = document["files"]
    if not isinstance(files, list):
        raise TypeError
    return tuple(_file_of_json(item, base) for item in files)


def _file_of_json(item: Mapping[str, object], base: str) -> IndexFile:
    hashes, size = item.get("hashes"), item.get("size")
    digest = str(hashes.get("sha256", "")) if isinstance(hashes, dict) else ""
    yanked = item.get("yanked")
    return IndexFile(
        filename=str(item["filename"]),
        url=urljoin(base, str(item["url"])),
        sha256=digest if _SHA256.fullmatch(digest) else "",
        size=size if isinstance(size, int) else 0,
        yanked=yanked is not None and yanked is not False,
        requires_python=str(item.get("requires-python") or ""),
    )


class _Anchors(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self.found.append(dict(attrs))
        elif tag == "base" and not self.base:
            self.base = dict(attrs).get("href") or ""


def _of_html(content: bytes, base: str) -> tuple[IndexFile, ...]:
    parser = _Anchors()
    parser.feed(content.decode("utf-8", "replace"))
    if parser.base:
        base = urljoin(base, parser.base)
    files = []
    for anchor in parser.found:
        url, fragment = urldefrag(urljoin(base, anchor.get("href") or ""))
        filename = unquote(urlsplit(url).path.rpartition("/")[2])
        if not filename.endswith((".whl", *SDISTS)):
            continue
        algorithm, _, digest = fragment.partition("=")
        is_digest = algorithm == "sha256" and _SHA256.fullmatch(digest)
        files.append(
            IndexFile(
                filename,
                url,
                digest if is_digest else "",
                yanked="data-yanked" in anchor,
                requires_python=anchor.get("data-requires-python") or "",
            )
        )
    if not files and not re.search(rb"<(?:!doctype html|html)", content[:4096], re.IGNORECASE):
        raise ValueError("not HTML")
    return tuple(files)


def _local(url: str) -> tuple[IndexFile, ...] | None:
    folder = url2pathname(urlsplit(url).path)
    try:
        return _of_html(read_small(os.path.join(folder, "index.html")), url)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        raise IndexUnusable(f"index {url}: cannot be read: {error}; correct it") from None
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return None
    return tuple(IndexFile(name, url + name) for name in names if name.endswith((".whl", *SDISTS)))
